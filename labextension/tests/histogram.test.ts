import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';
import type { IBin, ITensorStats } from '../src/report/format';
import { histogramOf, shownRange } from '../src/report/histogram';

const trans = nullTranslator.load('nanhunt');

function stats(bins: readonly IBin[], binned = 10): ITensorStats {
  const histogram = { bins, numel: 10, zeros: 3, subnormal: 1, binned };
  return { dtype: 'float16', histogram } as unknown as ITensorStats;
}

function bars(picture: SVGElement): string {
  return picture.querySelector('.nanhunt-Histogram-bars')!.getAttribute('d')!;
}

describe('the histogram', () => {
  it('has a bar for every count, positive ones up and negative ones down', () => {
    const picture = histogramOf(
      stats([
        { exponent: -1, negative: 0, positive: 4 },
        { exponent: 0, negative: 2, positive: 0 }
      ]),
      trans
    )!;
    const heights = [...bars(picture).matchAll(/v(-?[\d.]+)/g)].map(match => Number(match[1]));
    expect(heights).toEqual([-17, 8.5]);
  });

  it('says its counts in words, and whether it is a sample', () => {
    const bins = [{ exponent: 3, negative: 1, positive: 1 }];
    const label = (made: ITensorStats) => histogramOf(made, trans)!.getAttribute('aria-label');
    expect(label(stats(bins))).toBe('numbers from 2^3 to 2^4, 3 zeros, 1 subnormal');
    expect(label(stats(bins, 4))).toContain('a sample of 4 of 10');
  });

  it('shows the limit of the dtype where it is near', () => {
    const near = [{ exponent: 14, negative: 0, positive: 1 }];
    const far = [{ exponent: 0, negative: 0, positive: 1 }];
    const limit = (bins: IBin[]) =>
      histogramOf(stats(bins), trans)!.querySelector('.nanhunt-Histogram-limit');
    expect(limit(near)).not.toBeNull();
    expect(limit(far)).toBeNull();
    expect(shownRange(near, 'float16')).toEqual([13, 16.5]);
    expect(shownRange(near, 'unheard of')).toEqual([13, 16]);
  });

  it('is left out where there is none', () => {
    expect(histogramOf(stats([]), trans)).toBeNull();
    expect(histogramOf({ ...stats([]), histogram: null }, trans)).toBeNull();
  });

  it('is bounded, and numbers where they should be, whatever the bins say', () => {
    const odd = Array.from({ length: 100_000 }, (_, n) => {
      return { exponent: n % 2 ? 1e300 : -1e300, negative: -1, positive: n % 3 ? 1e308 : 0 };
    });
    const picture = histogramOf(stats(odd), trans)!;
    expect(bars(picture).length).toBeLessThan(200_000);
    expect(bars(picture)).not.toMatch(/NaN|Infinity/);
  });
});
