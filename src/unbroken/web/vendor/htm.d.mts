// The part of htm's types that the page uses.
declare const htm: { bind<R>(h: (type: any, props: Record<string, any>, ...children: any[]) => R): (strings: TemplateStringsArray, ...values: any[]) => R | R[] };
export default htm;
