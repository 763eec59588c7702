/** What the kernel says of a live hunt, and the commands that one can be given. */

/** Name of the comm; the same stands in `nanhunt/panel/remote.py`. */
export const TARGET = 'nanhunt.hunt';

/** The commands, in the order of the panel's buttons. */
export const COMMAND_NAMES = [
  'step',
  'run',
  'hunt',
  'pause',
  'into',
  'over',
  'out',
  'resume',
  'back',
  'replay',
  'stop'
] as const;

export type CommandName = (typeof COMMAND_NAMES)[number];

export type Grade = 'calm' | 'busy' | 'alarm';

export interface ILiveState {
  /** What the training is doing, in a sentence. */
  readonly headline: string;
  /** How grave that is. */
  readonly grade: Grade;
  /** What the last command answered, often nothing. */
  readonly notice: string;
  /** The commands that are possible now. */
  readonly possible: ReadonlySet<CommandName>;
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
    possible: new Set(COMMAND_NAMES.filter(name => names.includes(name)))
  };
}

function isRecord(value: unknown): value is { readonly [name: string]: unknown } {
  return typeof value === 'object' && value !== null;
}
