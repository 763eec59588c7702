import { describe, expect, it } from 'vitest';
import { decodeReport } from '../src/report/decode';
import {
  baseName,
  bits,
  number,
  visible,
  visibleLines,
  withoutEmptyEnds
} from '../src/report/text';
import { samples, words } from './words';

describe('words', () => {
  it.each(Object.keys(samples.reports))('of the report "%s" are those of Python', name => {
    const { report, verdict, values } = samples.reports[name]!;
    const decoded = decodeReport(report);
    if (!decoded.ok) {
      throw new Error('not read');
    }
    expect(words.headline(decoded.report)).toBe(verdict);
    const stats = decoded.report.findings.flatMap(f => [...f.inputs, ...f.outputs]);
    expect(stats.map(entry => words.badCounts(entry))).toEqual(values);
  });

  it.each(samples.numbers)('writes %d as Python does: %s', (value, text) => {
    expect(number(value)).toBe(text);
  });

  it('writes what is not finite or does not exist', () => {
    expect([NaN, Infinity, -Infinity, null].map(number)).toEqual(['nan', 'inf', '-inf', '–']);
    expect([12.34, null, Infinity].map(bits)).toEqual(['2^12.3', '–', '2^inf']);
  });

  it('makes characters visible that act instead of being seen', () => {
    expect(visible('a\u202eb\u0007\u2066\tc')).toBe('a\\u202eb\\u0007\\u2066 c');
    expect(visible('\ud800 lone')).toBe('\\ud800 lone');
  });

  it('cuts what is too long, and never between halves of a character', () => {
    expect(visible('x'.repeat(300), 10)).toBe('xxxxxxxxx…');
    expect(visible('😀'.repeat(20), 5)).toBe('😀😀😀😀…');
    expect(visible('x'.repeat(10), 10)).toBe('x'.repeat(10));
    expect(visibleLines('    if x:\n\n        y\n')).toBe('if x:\n\n    y\n');
    expect(visibleLines('a\n'.repeat(500), 3)).toBe('a\na\na\n…');
  });

  it('separates the thousands of steps, as Python does', () => {
    const decoded = decodeReport({ format: 'nanhunt.report', version: 1, steps_run: 12_345 });
    expect(decoded.ok && words.headline(decoded.report)).toBe(
      'Healthy: 12,345 steps, nothing bad seen'
    );
  });

  it('leaves line breaks out at both ends, and only there', () => {
    const all = ['\n\n  a\n\nb\n', 'a', '\n\n', ''].map(withoutEmptyEnds);
    expect(all).toEqual(['  a\n\nb', 'a', '', '']);
  });

  it('takes the last part of a path of either kind', () => {
    expect(['/a/b.py', 'C:\\a\\b.py', 'b.py', '/a/'].map(baseName)).toEqual([
      'b.py',
      'b.py',
      'b.py',
      '/a/'
    ]);
  });
});
