// The part of marked's types that the page uses.
export type Token = { type: string; raw: string; text?: string; tokens?: Token[] } & Record<string, any>;
export class Tokenizer {
  lheading(source: string): Token | undefined;
}
export class Lexer {
  constructor(options?: { gfm?: boolean; breaks?: boolean; tokenizer?: Tokenizer });
  lex(source: string): Token[];
  inlineTokens(source: string, tokens?: Token[]): Token[];
}
