/** Reads the JSON of reports and preflights; only this file knows how they are written. */
import {
  Fields,
  Misfit,
  callNumber,
  flag,
  isObject,
  list,
  orNull,
  real,
  table,
  text,
  whole
} from './fields';
import type { Expected, Reader } from './fields';
import { FORMAT, judged, PREFLIGHT_FORMAT, PREFLIGHT_VERSION, VERSION } from './format';
import type {
  IBin,
  IHistogram,
  IFact,
  IFinding,
  IFrame,
  IPreflight,
  IReport,
  ISource,
  ITensorStats,
  ITrial
} from './format';

/** More characters than this are not even parsed. */
export const MOST_CHARACTERS = 64_000_000;

/** Why something is not shown as a report. */
export type Refusal =
  | { readonly kind: 'not-json'; readonly detail: string }
  | { readonly kind: 'too-long'; readonly characters: number }
  | { readonly kind: 'no-report' }
  | { readonly kind: 'version'; readonly found: string }
  | { readonly kind: 'damaged'; readonly where: string; readonly expected: Expected };

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
    return refuse({ kind: 'version', found: told(parsed['version']) });
  }
  const report = orMisfit(readReport, parsed);
  if (report instanceof Misfit) {
    return refuse({ kind: 'damaged', where: report.path.join('.'), expected: report.expected });
  }
  return { ok: true, report };
}

/** Reads a preflight's facts from parsed JSON; null when it is none that this version reads. */
export function decodePreflight(data: unknown): IPreflight | null {
  if (!isObject(data) || data['format'] !== PREFLIGHT_FORMAT) {
    return null;
  }
  const preflight = data['version'] === PREFLIGHT_VERSION ? orMisfit(readPreflight, data) : null;
  return preflight instanceof Misfit ? null : preflight;
}

function orMisfit<T>(read: Reader<T>, data: unknown): T | Misfit {
  try {
    return read(data);
  } catch (error) {
    if (error instanceof Misfit) {
      return error;
    }
    throw error;
  }
}

function refuse(why: Refusal): Decoded {
  return { ok: false, why };
}

/** A value in a few characters; lists and objects, which may be deep or odd, without what they hold. */
function told(value: unknown): string {
  if (typeof value === 'object' && value !== null) {
    return Array.isArray(value) ? '[…]' : '{…}';
  }
  return String(value);
}

const bin: Reader<IBin> = value => {
  const [exponent, negative, positive] = list(whole)(value);
  if (exponent === undefined || negative === undefined || positive === undefined) {
    throw new Misfit('value');
  }
  return { exponent, negative, positive };
};

const histogram: Reader<IHistogram> = value => {
  const fields = new Fields(value);
  return {
    bins: fields.optional('bins', list(bin), []),
    numel: fields.needed('numel', whole),
    zeros: fields.optional('zeros', whole, 0),
    subnormal: fields.optional('subnormal', whole, 0),
    binned: fields.optional('binned', whole, 0)
  };
};

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
    note: fields.optional('note', text, ''),
    histogram: fields.optional('histogram', orNull(histogram), null)
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
  const report = {
    stepsRun: fields.needed('steps_run', whole),
    findings: fields.optional('findings', list(finding), []),
    replay: fields.optional('replay', text, 'not_needed'),
    interrupted: fields.optional('interrupted', flag, false),
    title: fields.optional('title', text, ''),
    notes: fields.optional('notes', list(text), []),
    environment: fields.optional('environment', table(text), new Map<string, string>()),
    costs: fields.optional('costs', table(real), new Map<string, number>())
  };
  return { ...report, status: fields.optional('status', text, '') || judged(report) };
};

const fact: Reader<IFact> = value => {
  const fields = new Fields(value);
  return {
    severity: fields.needed('severity', text),
    text: fields.needed('text', text),
    source: fields.optional('source', orNull(source), null)
  };
};

const readPreflight: Reader<IPreflight> = value => {
  const fields = new Fields(value);
  return {
    title: fields.needed('title', text),
    facts: fields.optional('facts', list(fact), [])
  };
};
