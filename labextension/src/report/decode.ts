/** Reads the JSON of a report; the only file that knows how the format is written. */
import { FORMAT, VERSION } from './format';
import type { IFinding, IFrame, IReport, ISource, ITensorStats, ITrial } from './format';

/** More characters than this are not even parsed. */
export const MOST_CHARACTERS = 64_000_000;

/** Why something is not shown as a report. */
export type Refusal =
  | { readonly kind: 'not-json'; readonly detail: string }
  | { readonly kind: 'too-long'; readonly characters: number }
  | { readonly kind: 'no-report' }
  | { readonly kind: 'version'; readonly found: string }
  | { readonly kind: 'damaged'; readonly where: string; readonly expected: string };

export type Decoded =
  { readonly ok: true; readonly report: IReport } | { readonly ok: false; readonly why: Refusal };

/** Reads a report from JSON text or from what JSON text was parsed to. */
export function decodeReport(data: unknown): Decoded {
  let parsed = data;
  if (typeof data === 'string') {
    if (data.length > MOST_CHARACTERS) {
      return refuse({ kind: 'too-long', characters: data.length });
    }
    try {
      parsed = JSON.parse(data);
    } catch (error) {
      return refuse({ kind: 'not-json', detail: String(error) });
    }
  }
  if (!isObject(parsed) || parsed['format'] !== FORMAT) {
    return refuse({ kind: 'no-report' });
  }
  if (parsed['version'] !== VERSION) {
    return refuse({ kind: 'version', found: String(parsed['version']) });
  }
  try {
    return { ok: true, report: readReport(parsed) };
  } catch (error) {
    if (error instanceof Misfit) {
      return refuse({ kind: 'damaged', where: error.path.join('.'), expected: error.expected });
    }
    throw error;
  }
}

function refuse(why: Refusal): Decoded {
  return { ok: false, why };
}

/** Something that does not belong where it stands; `path` grows on the way out. */
class Misfit extends Error {
  constructor(readonly expected: string) {
    super(expected);
  }
  readonly path: string[] = [];
}

type Json = { readonly [key: string]: unknown };
type Reader<T> = (value: unknown) => T;

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function within<T>(key: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof Misfit) {
      error.path.unshift(key);
    }
    throw error;
  }
}

const text: Reader<string> = value => {
  if (typeof value !== 'string') {
    throw new Misfit('text');
  }
  return value;
};

const whole: Reader<number> = value => {
  if (!Number.isInteger(value)) {
    throw new Misfit('a whole number');
  }
  return value as number;
};

const NON_FINITE = new Map([
  ['nan', NaN],
  ['inf', Infinity],
  ['-inf', -Infinity]
]);

/** JSON has no NaN and no infinities; a report writes them as text. */
const real: Reader<number> = value => {
  const number = typeof value === 'string' ? NON_FINITE.get(value) : value;
  if (typeof number !== 'number') {
    throw new Misfit('a number');
  }
  return number;
};

const flag: Reader<boolean> = value => {
  if (typeof value !== 'boolean') {
    throw new Misfit('true or false');
  }
  return value;
};

const callNumber: Reader<number | string> = value =>
  typeof value === 'string' ? value : whole(value);

function orNull<T>(read: Reader<T>): Reader<T | null> {
  return value => (value === null ? null : read(value));
}

function list<T>(read: Reader<T>): Reader<readonly T[]> {
  return value => {
    if (!Array.isArray(value)) {
      throw new Misfit('a list');
    }
    return value.map((item, index) => within(String(index), () => read(item)));
  };
}

function table<T>(read: Reader<T>): Reader<ReadonlyMap<string, T>> {
  return value => {
    if (!isObject(value)) {
      throw new Misfit('an object');
    }
    const entries = Object.entries(value);
    return new Map(entries.map(([key, item]) => [key, within(key, () => read(item))]));
  };
}

/** The fields of one record; those that are absent take their default. */
class Fields {
  constructor(value: unknown) {
    if (!isObject(value)) {
      throw new Misfit('an object');
    }
    this._value = value;
  }

  needed<T>(name: string, read: Reader<T>): T {
    return within(name, () => {
      if (!Object.hasOwn(this._value, name)) {
        throw new Misfit('a value');
      }
      return read(this._value[name]);
    });
  }

  optional<T>(name: string, read: Reader<T>, absent: T): T {
    return Object.hasOwn(this._value, name) ? this.needed(name, read) : absent;
  }

  private readonly _value: Json;
}

const stats: Reader<ITensorStats> = value => {
  const fields = new Fields(value);
  return {
    name: fields.needed('name', text),
    shape: fields.needed('shape', list(whole)),
    dtype: fields.needed('dtype', text),
    device: fields.needed('device', text),
    numel: fields.needed('numel', whole),
    nan: fields.optional('nan', whole, 0),
    posinf: fields.optional('posinf', whole, 0),
    neginf: fields.optional('neginf', whole, 0),
    zeros: fields.optional('zeros', whole, 0),
    absmin: fields.optional('absmin', orNull(real), null),
    absmax: fields.optional('absmax', orNull(real), null),
    mean: fields.optional('mean', orNull(real), null),
    headroom: fields.optional('headroom', orNull(real), null),
    firstBad: fields.optional('first_bad', orNull(list(whole)), null),
    note: fields.optional('note', text, '')
  };
};

const source: Reader<ISource> = value => {
  const fields = new Fields(value);
  return {
    file: fields.needed('file', text),
    line: fields.needed('line', whole),
    code: fields.needed('code', text),
    function: fields.optional('function', text, ''),
    cell: fields.optional('cell', orNull(whole), null)
  };
};

const frame: Reader<IFrame> = value => {
  const fields = new Fields(value);
  return {
    module: fields.needed('module', text),
    call: fields.needed('call', callNumber),
    kind: fields.needed('kind', text),
    output: fields.needed('output', stats)
  };
};

const trial: Reader<ITrial> = value => {
  const fields = new Fields(value);
  return {
    remedy: fields.needed('remedy', text),
    cured: fields.needed('cured', orNull(flag)),
    loss: fields.optional('loss', orNull(real), null),
    gradientChange: fields.optional('gradient_change', orNull(real), null),
    snippet: fields.optional('snippet', text, ''),
    note: fields.optional('note', text, ''),
    file: fields.optional('file', text, ''),
    lines: fields.optional('lines', list(whole), [])
  };
};

const finding: Reader<IFinding> = value => {
  const fields = new Fields(value);
  return {
    severity: fields.needed('severity', text),
    kind: fields.needed('kind', text),
    phase: fields.needed('phase', text),
    step: fields.needed('step', whole),
    module: fields.optional('module', orNull(text), null),
    call: fields.optional('call', orNull(callNumber), null),
    op: fields.optional('op', orNull(text), null),
    node: fields.optional('node', orNull(text), null),
    source: fields.optional('source', orNull(source), null),
    stack: fields.optional('stack', list(source), []),
    tensor: fields.optional('tensor', orNull(text), null),
    inputs: fields.optional('inputs', list(stats), []),
    outputs: fields.optional('outputs', list(stats), []),
    cause: fields.optional('cause', text, 'not_established'),
    explanation: fields.optional('explanation', text, ''),
    evidence: fields.optional('evidence', list(text), []),
    reaches: fields.optional('reaches', list(text), []),
    frames: fields.optional('frames', list(frame), []),
    trials: fields.optional('trials', list(trial), [])
  };
};

const readReport: Reader<IReport> = value => {
  const fields = new Fields(value);
  return {
    stepsRun: fields.needed('steps_run', whole),
    findings: fields.optional('findings', list(finding), []),
    replay: fields.optional('replay', text, 'not_needed'),
    interrupted: fields.optional('interrupted', flag, false),
    title: fields.optional('title', text, ''),
    notes: fields.optional('notes', list(text), []),
    environment: fields.optional('environment', table(text), new Map<string, string>()),
    costs: fields.optional('costs', table(real), new Map<string, number>())
  };
};
