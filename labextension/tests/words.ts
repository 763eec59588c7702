import { nullTranslator } from '@jupyterlab/translation';
import { Wording } from '../src/report/wording';
import written from './samples/reports.json';

export const words = new Wording(nullTranslator.load('nanhunt'));

interface ISample {
  readonly report: unknown;
  readonly verdict: string;
  readonly sign: string;
  /** What the story of the report says, without its labels. */
  readonly facts: readonly string[];
  readonly values: readonly string[];
}

export interface ISamples {
  readonly reports: Record<string, ISample>;
  readonly preflight: unknown;
  readonly numbers: readonly (readonly [number, string])[];
}

/** Reports with what Python says about them; `tests/test_labextension.py` writes them. */
export const samples = written as unknown as ISamples;
