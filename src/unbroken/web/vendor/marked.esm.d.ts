// The part of marked's types that the page uses.
export type Token = { type: string; raw: string; text?: string; tokens?: Token[] } & Record<string, any>;
export function lexer(source: string, options?: { gfm?: boolean; breaks?: boolean }): Token[];
