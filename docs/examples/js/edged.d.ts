// Types of edged.js.

export type State = "unknown" | "fresh" | "stale" | "expired" | "unreachable";
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

export interface Options {
  token?: string;
  storage?: { getItem(name: string): string | null; setItem(name: string, text: string): void };
  entries?: number;
  timeoutMs?: number;
  fetch?: (url: string, wanted: { headers: Record<string, string>; signal?: AbortSignal }) => Promise<Response>;
  onState?: (state: State, before: State) => void;
}

export interface Shape {
  view?: string;
  fields?: string[];
  expand?: string[];
}

export type Scalar = string | number | boolean;
export interface Range {
  gte?: Scalar;
  gt?: Scalar;
  lte?: Scalar;
  lt?: Scalar;
}

export interface Query extends Shape {
  prefix?: string;
  after?: string;
  limit?: number;
  q?: string;
  where?: { [field: string]: Scalar | Scalar[] | Range };
  order?: string;
  at?: string | number;
  from?: string | number;
  to?: string | number;
  group?: string;
  distinct?: string;
  count?: 1;
  facets?: string[];
}

export interface Item<T> {
  key: string;
  value: T;
  group?: Scalar | null;
}
export interface Page<T> {
  items: Item<T>[];
  version: number;
  next: string | null;
  stale: boolean;
  total?: number;
  warnings?: string[];
  facets?: { [field: string]: { [value: string]: number } };
}
export interface Batch<T> {
  items: Item<T | null>[];
  version: number;
  stale: boolean;
}

export interface Change<T> {
  collection: string;
  key: string;
  value?: T;
  deleted?: true;
  version: number;
}
export interface Wanted<T> {
  since?: number | string;
  collection?: string | string[];
  view?: string;
  fields?: string[];
  expand?: string[];
  onChange?: (change: Change<T>) => void | Promise<void>;
  onVersion?: (version: number) => void | Promise<void>;
  onReset?: (version: number) => void | Promise<void>;
  onError?: (fault: Error) => void;
}
export interface Following {
  readonly version: number | null;
  stop(): void;
}

export class EdgedError extends Error {
  status: number;
  retryAfterS: number | null;
}

export class Dataset {
  describe(): Promise<{ dataset: string; version: number; state: State; collections: { [name: string]: number } }>;
  get<T = Json>(collection: string, key: string, shape?: Shape): Promise<T | null>;
  batch<T = Json>(collection: string, keys: string[], shape?: Shape): Promise<Batch<T>>;
  query<T = Json>(collection: string, wanted?: Query): Promise<Page<T>>;
  pages<T = Json>(
    collection: string,
    wanted: Query,
    onPage: (items: Item<T>[], page: Page<T>) => void | boolean | Promise<void | boolean>
  ): Promise<void>;
  follow<T = Json>(wanted: Wanted<T>): Following;
}

export class Client {
  constructor(base: string, options?: Options);
  readonly state: State;
  dataset(name: string): Dataset;
  save(): void;
}

export as namespace Edged;
