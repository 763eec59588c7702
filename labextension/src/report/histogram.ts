/** A tensor's numbers by power of two, drawn from the bins: positive ones up, negative ones down. */
import type { TranslationBundle } from '@jupyterlab/translation';
import { svg } from '../dom';
import type { IBin, ITensorStats } from './format';
import { LIMITS } from './range';
import { count } from './text';

const WIDTH = 150;
const HEIGHT = 36;
/** No dtype has more powers of two. */
const MOST_BINS = 2200;

/** The picture with its counts as label; null when there are no bins. */
export function histogramOf(stats: ITensorStats, trans: TranslationBundle): SVGElement | null {
  const histogram = stats.histogram;
  const bins = histogram?.bins.slice(0, MOST_BINS) ?? [];
  if (histogram === null || bins.length === 0) {
    return null;
  }
  const [low, high] = shownRange(bins, stats.dtype);
  const parts = [
    trans.__(
      'numbers from 2^%1 to 2^%2',
      Math.min(...exponents(bins)),
      Math.max(...exponents(bins)) + 1
    ),
    trans.__('%1 zeros', count(histogram.zeros)),
    trans.__('%1 subnormal', count(histogram.subnormal))
  ];
  if (histogram.binned < histogram.numel) {
    const [sample, all] = [count(histogram.binned), count(histogram.numel)];
    parts.push(trans.__('a sample of %1 of %2', sample, all));
  }
  const label = parts.join(', ');
  const at = (exponent: number) => (WIDTH * (exponent - low)) / (high - low);
  const limit = LIMITS.get(stats.dtype)?.[1] ?? Infinity;
  return svg(
    'svg',
    { class: 'nanhunt-Histogram', role: 'img', 'aria-label': label, width: WIDTH, height: HEIGHT },
    svg('title', {}, label),
    svg('path', { class: 'nanhunt-Histogram-bars', d: bars(bins, at) }),
    svg('path', { class: 'nanhunt-Histogram-axis', d: `M0 ${HEIGHT / 2}H${WIDTH}` }),
    limit <= high
      ? svg('path', { class: 'nanhunt-Histogram-limit', d: `M${at(limit)} 0V${HEIGHT}` })
      : null
  );
}

/** From a little below the first bin to a little above the last; the dtype's limit if it is near. */
export function shownRange(bins: readonly IBin[], dtype: string): readonly [number, number] {
  const low = Math.min(...exponents(bins)) - 1;
  const high = Math.max(...exponents(bins)) + 2;
  const limit = LIMITS.get(dtype)?.[1] ?? Infinity;
  return [low, limit - high <= 4 ? Math.max(high, limit + 0.5) : high];
}

function exponents(bins: readonly IBin[]): number[] {
  return bins.map(bin => bin.exponent);
}

/** One path for all bars; a bin with anything in it is at least a pixel high. */
function bars(bins: readonly IBin[], at: (exponent: number) => number): string {
  const most = Math.max(1, ...bins.map(bin => Math.max(bin.negative, bin.positive)));
  const middle = HEIGHT / 2;
  const drawn = bins.flatMap(({ exponent, negative, positive }) => {
    const [from, to] = [at(exponent).toFixed(2), Math.max(1, at(1) - at(0) - 0.5).toFixed(2)];
    const bar = (amount: number, sign: 1 | -1) => {
      const height = Math.max(1, (amount / most) * (middle - 1));
      return amount > 0 ? `M${from} ${middle}h${to}v${(sign * height).toFixed(2)}h-${to}z` : '';
    };
    return [bar(positive, -1), bar(negative, 1)];
  });
  return drawn.join('');
}
