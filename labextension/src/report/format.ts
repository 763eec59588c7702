/**
 * What a report says: the records of `nanhunt/records/report.py`, as read by `decode.ts`.
 *
 * Numbers may be NaN or infinite; `null` stands for what does not exist.
 */
export const MIME_TYPE = 'application/vnd.nanhunt.report.v1+json';
export const FORMAT = 'nanhunt.report';
export const VERSION = 1;
export const PREFLIGHT_MIME_TYPE = 'application/vnd.nanhunt.preflight.v1+json';
export const PREFLIGHT_FORMAT = 'nanhunt.preflight';
export const PREFLIGHT_VERSION = 1;

/** How many numbers x have 2**exponent <= |x| < 2**(exponent + 1). */
export interface IBin {
  readonly exponent: number;
  readonly negative: number;
  readonly positive: number;
}

/** Numbers by power of two; zeros, subnormal and non-finite numbers stand in no bin. */
export interface IHistogram {
  readonly bins: readonly IBin[];
  readonly numel: number;
  readonly zeros: number;
  readonly subnormal: number;
  /** How many of the numbers were sorted into bins. */
  readonly binned: number;
}

export interface ITensorStats {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly device: string;
  readonly numel: number;
  readonly nan: number;
  readonly posinf: number;
  readonly neginf: number;
  readonly zeros: number;
  readonly absmin: number | null;
  readonly absmax: number | null;
  readonly mean: number | null;
  /** Powers of two between `absmax` and the largest finite number of the dtype. */
  readonly headroom: number | null;
  readonly firstBad: readonly number[] | null;
  readonly note: string;
  readonly histogram: IHistogram | null;
}

export interface ISource {
  readonly file: string;
  /** Counted from 1. */
  readonly line: number;
  /** The line's text, stripped; empty when it could not be read. */
  readonly code: string;
  readonly function: string;
  /** Execution count of the notebook cell, or null outside a notebook. */
  readonly cell: number | null;
}

export interface IFrame {
  readonly module: string;
  readonly call: number | string;
  readonly kind: string;
  readonly output: ITensorStats;
}

export interface ITrial {
  readonly remedy: string;
  readonly cured: boolean | null;
  readonly loss: number | null;
  readonly gradientChange: number | null;
  readonly snippet: string;
  readonly note: string;
  readonly file: string;
  readonly lines: readonly number[];
}

export interface IFinding {
  readonly severity: string;
  readonly kind: string;
  readonly phase: string;
  readonly step: number;
  readonly module: string | null;
  readonly call: number | string | null;
  readonly op: string | null;
  readonly node: string | null;
  readonly source: ISource | null;
  readonly stack: readonly ISource[];
  readonly tensor: string | null;
  readonly inputs: readonly ITensorStats[];
  readonly outputs: readonly ITensorStats[];
  readonly cause: string;
  readonly explanation: string;
  readonly evidence: readonly string[];
  readonly reaches: readonly string[];
  readonly frames: readonly IFrame[];
  readonly trials: readonly ITrial[];
}

export interface IReport {
  readonly stepsRun: number;
  readonly findings: readonly IFinding[];
  readonly replay: string;
  readonly interrupted: boolean;
  readonly title: string;
  readonly notes: readonly string[];
  readonly environment: ReadonlyMap<string, string>;
  readonly costs: ReadonlyMap<string, number>;
  /** What it all comes to; one of those in `nanhunt/records/report.py`. */
  readonly status: string;
}

/** One thing worth knowing before the training goes on. */
export interface IFact {
  readonly severity: string;
  readonly text: string;
  readonly source: ISource | null;
}

/** What is shown of a preflight beside its own output. */
export interface IPreflight {
  readonly title: string;
  readonly facts: readonly IFact[];
}

/** Whether a finding says what made the bad values, or only that they were seen. */
export function isPlaced(finding: IFinding): boolean {
  const numeric = ['nan', 'inf'].includes(finding.kind) && finding.phase !== 'data';
  return !numeric || Boolean(finding.op || finding.node || finding.source);
}

/** The status of a report in a file of a version that wrote none. */
export function judged(report: Omit<IReport, 'status'>): string {
  const main = mainFinding(report);
  if (main) {
    return isPlaced(main) || main.cause !== 'not_established' ? 'finding' : 'unexplained';
  }
  if (report.interrupted) {
    return 'interrupted';
  }
  if (report.stepsRun === 0) {
    return 'nothing_watched';
  }
  return report.findings.length ? 'warning' : 'healthy';
}

/** The main critical finding, or null when there is none. */
export function mainFinding(report: Pick<IReport, 'findings'>): IFinding | null {
  return report.findings.find(finding => finding.severity === 'critical') ?? null;
}
