/** What the kernel says of a live hunt, and the commands that one can be given. */
import table from './controls.json';

/** Name of the comm; the same stands in `nanhunt/panel/remote.py`. */
export const TARGET = 'nanhunt.hunt';

/** A command of a live hunt; `controls.json` comes from `nanhunt/panel/`, the table of both. */
export interface IControl {
  readonly name: string;
  /** On a button, as in the panel. */
  readonly button: string;
  /** In the palette and in menus. */
  readonly menu: string;
  readonly hint: string;
}

/** The commands, in the order of the panel's buttons. */
export const CONTROLS: readonly IControl[] = table;

export type Grade = 'calm' | 'busy' | 'alarm';

export interface ILiveState {
  /** What the training is doing, in a sentence. */
  readonly headline: string;
  /** How grave that is. */
  readonly grade: Grade;
  /** What the last command answered, often nothing. */
  readonly notice: string;
  /** Names of the commands that are possible now. */
  readonly possible: ReadonlySet<string>;
}

/** Reads the data of a message of the comm; null when it holds no state. */
export function decodeState(data: unknown): ILiveState | null {
  const told = isRecord(data) ? data['hunt'] : null;
  if (!isRecord(told) || typeof told['headline'] !== 'string') {
    return null;
  }
  const { headline, notice, grade, commands } = told;
  const names: readonly unknown[] = Array.isArray(commands) ? commands : [];
  return {
    headline,
    notice: typeof notice === 'string' ? notice : '',
    grade: grade === 'busy' || grade === 'alarm' ? grade : 'calm',
    possible: new Set(CONTROLS.map(({ name }) => name).filter(name => names.includes(name)))
  };
}

function isRecord(value: unknown): value is { readonly [name: string]: unknown } {
  return typeof value === 'object' && value !== null;
}
