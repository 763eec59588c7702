import { nullTranslator } from '@jupyterlab/translation';
import { Wording } from '../src/report/wording';
import written from './samples/reports.json';

export const words = new Wording(nullTranslator.load('nanhunt'));

export interface ISamples {
  readonly reports: Record<string, { report: unknown; verdict: string; values: string[] }>;
  readonly preflight: unknown;
  readonly numbers: readonly (readonly [number, string])[];
}

/** Reports with what Python says about them; `tests/test_labextension.py` writes them. */
export const samples = written as unknown as ISamples;
