// The part of preact's types that the page uses.
export interface VNode<P = unknown> { type: unknown; props: P; key: unknown }
export type Child = VNode<any> | string | number | boolean | null | undefined | Child[];
export function h(type: any, props: Record<string, any> | null, ...children: Child[]): VNode<any>;
export function render(vnode: Child, parent: Element | DocumentFragment): void;
export const options: { vnode?: (vnode: VNode<any>) => void };
export class Component<P = {}, S = {}> {
  constructor(props: P);
  props: P;
  state: S;
  setState(change: Partial<S> | ((state: S) => Partial<S>)): void;
  forceUpdate(): void;
  componentDidMount?(): void;
  componentDidUpdate?(before: P): void;
  componentWillUnmount?(): void;
  shouldComponentUpdate?(props: P, state: S): boolean;
  render(props?: P, state?: S): any;
}
