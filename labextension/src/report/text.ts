/** Numbers, names and counts as text, the same as in `nanhunt/render/wording.py`. */

/** Characters that act instead of being seen: controls, direction changes, lone surrogates. */
const ACTING = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;

/** Makes acting characters visible, and cuts what is too long. */
export function visible(value: string, limit = 200): string {
  // Cut first, so that a name of megabytes costs nothing; an escape only makes it longer.
  const characters = Array.from(value.slice(0, 2 * limit + 2));
  const shown = Array.from(
    characters
      .slice(0, limit + 1)
      .join('')
      .replace(ACTING, escaped)
  );
  return shown.length <= limit ? shown.join('') : `${shown.slice(0, limit - 1).join('')}…`;
}

function escaped(character: string): string {
  if (character === '\t') {
    return ' ';
  }
  return `\\u${character.codePointAt(0)!.toString(16).padStart(4, '0')}`;
}

/** Lines of code without their common margin, made visible, and not too many. */
export function visibleLines(code: string, most = 200): string {
  const lines = code.split('\n', most + 1);
  const margins = lines.filter(line => line.trim()).map(line => line.search(/\S/));
  const margin = Math.min(...margins, 400);
  const shown = lines.slice(0, most).map(line => visible(line.slice(margin), 400));
  return [...shown, ...(lines.length > most ? ['…'] : [])].join('\n');
}

/** A text without its first and last line breaks; a pattern would take the square of their number. */
export function withoutEmptyEnds(text: string): string {
  let [start, end] = [0, text.length];
  while (text[start] === '\n') {
    start++;
  }
  while (end > start && text[end - 1] === '\n') {
    end--;
  }
  return text.slice(start, end);
}

/** Three significant digits, as Python's `.3g`; a dash for what does not exist. */
export function number(value: number | null): string {
  if (value === null) {
    return '–';
  }
  if (!Number.isFinite(value)) {
    return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf';
  }
  const [digits = '', power = ''] = value.toExponential(2).split('e');
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 3) {
    const sign = exponent < 0 ? '-' : '+';
    return `${shortened(digits)}e${sign}${String(Math.abs(exponent)).padStart(2, '0')}`;
  }
  return shortened(value.toPrecision(3));
}

function shortened(digits: string): string {
  return digits.includes('.') ? digits.replace(/\.?0+$/, '') : digits;
}

/** Powers of two up to the dtype's limit. */
export function bits(value: number | null): string {
  return value === null ? '–' : `2^${Number.isFinite(value) ? value.toFixed(1) : number(value)}`;
}

/** A whole number with separators, as Python writes it: `4,096`. */
export function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** The last part of a path, of whichever system. */
export function baseName(path: string): string {
  return path.slice(Math.max(path.lastIndexOf('/'), path.lastIndexOf('\\')) + 1) || path;
}
