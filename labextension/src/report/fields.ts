/** Readers of JSON values: each takes what it is given or says what was expected there. */

/** What was expected; `wording.ts` says it in the user's language. */
export type Expected = 'text' | 'whole' | 'number' | 'flag' | 'list' | 'object' | 'value';

/** Something that does not belong where it stands; `path` grows on the way out. */
export class Misfit extends Error {
  constructor(readonly expected: Expected) {
    super(expected);
  }
  readonly path: string[] = [];
}

type Json = { readonly [key: string]: unknown };
export type Reader<T> = (value: unknown) => T;

export function isObject(value: unknown): value is Json {
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

export const text: Reader<string> = value => {
  if (typeof value !== 'string') {
    throw new Misfit('text');
  }
  return value;
};

export const whole: Reader<number> = value => {
  if (!Number.isInteger(value)) {
    throw new Misfit('whole');
  }
  return value as number;
};

const NON_FINITE = new Map([
  ['nan', NaN],
  ['inf', Infinity],
  ['-inf', -Infinity]
]);

/** JSON has no NaN and no infinities; a report writes them as text. */
export const real: Reader<number> = value => {
  const number = typeof value === 'string' ? NON_FINITE.get(value) : value;
  if (typeof number !== 'number') {
    throw new Misfit('number');
  }
  return number;
};

export const flag: Reader<boolean> = value => {
  if (typeof value !== 'boolean') {
    throw new Misfit('flag');
  }
  return value;
};

export const callNumber: Reader<number | string> = value =>
  typeof value === 'string' ? value : whole(value);

export function orNull<T>(read: Reader<T>): Reader<T | null> {
  return value => (value === null ? null : read(value));
}

export function list<T>(read: Reader<T>): Reader<readonly T[]> {
  return value => {
    if (!Array.isArray(value)) {
      throw new Misfit('list');
    }
    return value.map((item, index) => within(String(index), () => read(item)));
  };
}

export function table<T>(read: Reader<T>): Reader<ReadonlyMap<string, T>> {
  return value => {
    if (!isObject(value)) {
      throw new Misfit('object');
    }
    const entries = Object.entries(value);
    return new Map(entries.map(([key, item]) => [key, within(key, () => read(item))]));
  };
}

/** The fields of one record; those that are absent take their default. */
export class Fields {
  constructor(value: unknown) {
    if (!isObject(value)) {
      throw new Misfit('object');
    }
    this._value = value;
  }

  needed<T>(name: string, read: Reader<T>): T {
    return within(name, () => {
      if (!Object.hasOwn(this._value, name)) {
        throw new Misfit('value');
      }
      return read(this._value[name]);
    });
  }

  optional<T>(name: string, read: Reader<T>, absent: T): T {
    return Object.hasOwn(this._value, name) ? this.needed(name, read) : absent;
  }

  private readonly _value: Json;
}
