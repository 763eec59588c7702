/** The magnitudes of a tensor, drawn against what its dtype can hold. */
import type { TranslationBundle } from '@jupyterlab/translation';
import { h } from '../dom';
import type { ITensorStats } from './format';
import { bits } from './text';

/** Exponents of two of the smallest and the largest finite magnitude of a dtype. */
export const LIMITS = new Map<string, readonly [number, number]>([
  ['float8_e4m3fn', [-9, 8.81]],
  ['float8_e5m2', [-16, 15.81]],
  ['float16', [-24, 16]],
  ['complex32', [-24, 16]],
  ['bfloat16', [-133, 128]],
  ['float32', [-149, 128]],
  ['complex64', [-149, 128]],
  ['float64', [-1074, 1024]],
  ['complex128', [-1074, 1024]]
]);

/** Where a tensor's magnitudes lie, as fractions of its dtype's range; null when unknown. */
export function magnitudes(stats: ITensorStats): readonly [number, number] | null {
  const limits = LIMITS.get(stats.dtype);
  const { absmin, absmax } = stats;
  if (!limits || absmin === null || absmax === null || !(absmin > 0) || !Number.isFinite(absmax)) {
    return null;
  }
  const [low, high] = limits;
  const at = (value: number) => Math.min(1, Math.max(0, (Math.log2(value) - low) / (high - low)));
  return [at(absmin), at(absmax)];
}

/** A bar from the smallest to the largest magnitude; its ends are said in its label. */
export function rangeBar(stats: ITensorStats, trans: TranslationBundle): HTMLElement | null {
  const range = magnitudes(stats);
  if (range === null || stats.absmin === null || stats.absmax === null) {
    return null;
  }
  const label = trans.__(
    'magnitudes from %1 to %2 in the range of %3',
    bits(Math.log2(stats.absmin)),
    bits(Math.log2(stats.absmax)),
    stats.dtype
  );
  const fill = h('span', { class: 'nanhunt-Range-fill' });
  fill.style.left = `${100 * range[0]}%`;
  fill.style.width = `max(2px, ${100 * (range[1] - range[0])}%)`;
  if (stats.headroom !== null && stats.headroom < 2) {
    fill.classList.add('nanhunt-mod-near');
  }
  return h(
    'span',
    { class: 'nanhunt-Range', role: 'img', 'aria-label': label, title: label },
    fill
  );
}
