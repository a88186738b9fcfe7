// Hold, extend, confirm, release and adjust stock, and buy carts, from Node, by the scripts' SHA-1s and nothing but ioredis.
//
//     node stockhold.mjs hold CART TTL_MS SKU QUANTITY ID [SKU QUANTITY ID ...]
//     node stockhold.mjs cart-hold CART TTL_MS OPERATION SKU QUANTITY ID [SKU QUANTITY ID ...]
//     node stockhold.mjs cart-confirm TOKEN SKU ID [SKU ID ...]
//     node stockhold.mjs extend SKU ID TTL_MS
//     node stockhold.mjs confirm SKU ID TOKEN
//     node stockhold.mjs release SKU ID TOKEN
//     node stockhold.mjs adjust SKU UNITS OPERATION REASON [VERSION]
//
// REDIS_URL says where (redis+cluster:// for a cluster), and NODE_EXTRA_CA_CERTS whom to trust with rediss://. SHARDS is the number of
// shards if the stock has several: a call is then about SKUs of one shard, and an id carries its number.
// Exit status: 0 done, 1 refused, 2 not possible, 75 no answer (run the same command again).

import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { Cluster, Redis, ReplyError } from 'ioredis';

const AUDIT = 'inventory:audit';
const DUE = 'stockhold:due';
const SKUS = 'stockhold:skus';
const SETTINGS = 'stockhold:settings';
const SHARDS = Number(process.env.SHARDS ?? 1);

// First words of errors that pass.
const PASSING = ['NOSCRIPT', 'LOADING', 'BUSY', 'READONLY', 'OOM', 'MISCONF', 'MASTERDOWN', 'CLUSTERDOWN', 'TRYAGAIN'];

/** No answer in time. It may have been done: the same call, with the same id, token or operation, finds out. */
export class OutcomeUnknown extends Error {}

export class Stockhold {
  #redis;
  #patienceMs;
  #sha1s = {};

  constructor(redis, patienceMs = 10_000) {
    this.#redis = redis;
    this.#patienceMs = patienceMs;
  }

  /** Holds every line { sku, quantity, id } or none. The caller makes up the ids, and keeps them before it calls. */
  async hold(cart, ttlMs, lines) {
    const keys = [...shared(lines, AUDIT, DUE), ...lines.flatMap(({ sku, id }) => itemKeys(sku, id))];
    const args = ['all', ...lines.flatMap(({ quantity }) => [cart, String(quantity), String(ttlMs)])];
    return this.#callAndSweep('hold', keys, args, lines.map(({ sku }) => sku));
  }

  /**
   * Holds every line { sku, quantity, id } or none, each SKU once, and lists them under the cart. The caller makes up the
   * operation and the ids, UUIDs, and keeps them before it calls.
   */
  async cartHold(cart, ttlMs, operation, lines) {
    const ofCart = shared(lines, AUDIT, DUE, SETTINGS, `cart:${cart}`, `operation:${operation}`);
    const keys = [...ofCart, ...lines.flatMap(({ sku, id }) => itemKeys(sku, id))];
    const args = ['once', String(ttlMs), '', ...lines.map(({ quantity }) => String(quantity))];
    return this.#callAndSweep('cart_hold', keys, args, lines.map(({ sku }) => sku));
  }

  /** Sells every line { sku, id } or none. */
  async cartConfirm(token, lines) {
    const keys = [...shared(lines, AUDIT, DUE, SETTINGS), ...lines.flatMap(({ sku, id }) => itemKeys(sku, id))];
    return this.#call('confirm', keys, ['all', ...lines.map(() => token)]);
  }

  /** More time, from now: while the customer pays. A hold is never shortened, so a repeat is harmless. */
  extend(sku, id, ttlMs) {
    return this.#callForOne('extend', sku, id, String(ttlMs));
  }

  confirm(sku, id, token) {
    return this.#callForOne('confirm', sku, id, token);
  }

  release(sku, id, token) {
    return this.#callForOne('release', sku, id, token);
  }

  /**
   * Adds units, or takes them away; what is held or sold stays. The caller makes up the operation, a UUID, and keeps it
   * before it calls. With a version: only if the SKU still has it.
   */
  async adjust(sku, units, operation, reason = '', version = '') {
    const stock = [`inventory:${sku}`, `inventory:${sku}:active`, `operation:${operation}`];
    const keys = shared([{ sku }], AUDIT, SKUS, SETTINGS, ...stock);
    const args = ['each', 'add', String(units), version, '', reason, 'once'];
    const [reply] = await this.#callAndSweep('adjust', keys, args, [sku]);
    return reply;
  }

  async #callForOne(script, sku, id, argument) {
    const keys = [...shared([{ sku }], AUDIT, DUE, SETTINGS), ...itemKeys(sku, id)];
    const [reply] = await this.#call(script, keys, ['each', argument]);
    return reply;
  }

  /** Calls again when units were on holds that are due: there is one reply for each of the SKUs. */
  async #callAndSweep(script, keys, args, skus) {
    const deadline = Date.now() + this.#patienceMs;
    for (;;) {
      const replies = await this.#call(script, keys, args);
      const lapsed = skus.filter((_, i) => replies[i][0] === 'INSUFFICIENT' && replies[i][2] !== '0');
      if (lapsed.length === 0 || Date.now() > deadline) return replies;
      for (const sku of lapsed) await this.#sweep(sku);
    }
  }

  /** Gives back the units of the holds that are due: up to 100 of them, the earliest first. */
  async #sweep(sku) {
    const stock = shared([{ sku }], `inventory:${sku}`, `inventory:${sku}:active`);
    const [, ...listed] = await this.#call('inventory', stock, ['100']);
    const reservations = shared([{ sku }], ...listed.map(([, id]) => `reservation:${id}`));
    await this.#call('sweep', [...shared([{ sku }], AUDIT, DUE, SETTINGS), ...stock, ...reservations], []);
  }

  /** Calls until there is an answer. That is safe: a repeat with the same id, token or operation has no second effect. */
  async #call(script, keys, args) {
    const deadline = Date.now() + this.#patienceMs;
    for (;;) {
      try {
        return await this.#redis.evalsha(await this.#sha1(script), keys.length, ...keys, ...args);
      } catch (error) {
        const word = error.message.split(' ')[0];
        // BADARGS, BADKEY, NOPERM: a defect of the caller. What is no reply at all is a connection that was lost.
        if (error instanceof ReplyError && !PASSING.includes(word)) throw error;
        // Redis restarted, or another version is out: look again. Whoever runs stockhold loads it in seconds.
        if (word === 'NOSCRIPT') this.#sha1s = {};
        // The connection may be dead without knowing it.
        if (error.message === 'Command timed out' && this.#redis.status === 'ready') this.#redis.disconnect(true);
        if (Date.now() > deadline) throw new OutcomeUnknown(error.message, { cause: error });
        await sleep(100);
      }
    }
  }

  async #sha1(script) {
    if (!(script in this.#sha1s)) this.#sha1s = await this.#redis.hgetall('stockhold:scripts');
    if (!(script in this.#sha1s)) throw new ReplyError(`NOSCRIPT ${script} is not published`);
    return this.#sha1s[script];
  }
}

/** What the keys of a SKU begin with; ids of its reservations carry the same number in hexadecimal. */
function prefix(sku) {
  if (SHARDS === 1) return '';
  let crc = 0;
  for (const byte of Buffer.from(sku)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc << 1) ^ (crc & 0x8000 ? 0x11021 : 0);
  }
  return `{${crc % SHARDS}}:`;
}

/** Keys in the shard of the lines. */
function shared(lines, ...keys) {
  const [first = '', ...others] = new Set(lines.map(({ sku }) => prefix(sku)));
  if (others.length > 0) throw new RangeError('these SKUs are in several shards: make a call for each');
  return keys.map((key) => first + key);
}

const itemKeys = (sku, id) =>
  shared([{ sku }], `inventory:${sku}`, `inventory:${sku}:active`, `reservation:${id}`);

function inWords([word, ...fields]) {
  switch (word) {
    case 'HELD': return `until ${fields[0]}`;
    case 'ADJUSTED': return `${fields[0]} available`;
    // What an adjustment left has five fields; a reservation has more.
    case 'REPLAYED': if (fields.length === 5) return `done before; it left ${fields[0]} available`;
      return `done before; it is ${fields[3]}`;
    case 'EXTENDED': return `until ${fields[5]}`;
    case 'LIMITED': return `not after ${fields[0]}`;
    case 'CONFIRMED': return 'sold';
    case 'RELEASED': return 'back on sale';
    case 'INSUFFICIENT': return `${fields[0]} left`;
    case 'UNKNOWN_SKU': return 'never on sale';
    case 'STALE': return `it has version ${fields[0]}`;
    case 'EXCESSIVE': return 'more than there can be';
    case 'FULL': return 'the cart lists 100 reservations';
    case 'BY_CART': return 'held with its cart only';
    case 'UNSEEN': return 'the cart has more of it';
    case 'CART_LIMIT': return `${fields[0]} a cart, and it has ${fields[1]}`;
    case 'TOO_LONG': return `${fields[0]} ms at most`;
    case 'WITHDRAWN': return 'another line was refused';
    case 'CONFLICT': return `used with another ${fields[0]}`;
    case 'NOT_ACTIVE': return `it is ${fields[0]} already`;
    case 'EXPIRED': return 'too late, back on sale';
    case 'NOT_FOUND': return 'no such reservation';
    default: throw new Error(`not a reply of today's contract: ${word}`);
  }
}

/** A client that waits a second for a reply, and leaves it to #call to ask again. */
export function connect() {
  const url = process.env.REDIS_URL ?? 'redis://127.0.0.1:6390';
  const options = {
    commandTimeout: 1000,
    retryStrategy: () => 100,
    maxRetriesPerRequest: 0,
    enableReadyCheck: false, // it asks for INFO, which a caller has no need of
  };
  const redis = url.includes('+cluster:') ? connectToCluster(url, options) : new Redis(url, options);
  redis.on('error', () => {}); // each call gets its own error
  return redis;
}

/** Of the nodes of a cluster, the first finds the others. */
function connectToCluster(url, options) {
  const { hostname, port, username, password, protocol } = new URL(url.replace(/,[^/]*/, ''));
  const tls = protocol.startsWith('rediss') ? {} : undefined;
  return new Cluster([{ host: hostname, port: Number(port || 6379) }], {
    clusterRetryStrategy: () => 100,
    enableReadyCheck: false,
    redisOptions: { ...options, username: username || undefined, password: password || undefined, tls },
  });
}

function linesOf(words) {
  const lines = [];
  while (words.length > 0) {
    const [sku, quantity, id] = words.splice(0, 3);
    lines.push({ sku, quantity, id });
  }
  return lines;
}

async function main([command, ...words]) {
  const redis = connect();
  try {
    const shop = new Stockhold(redis);
    let replies;
    if (command === 'hold' && words.length >= 5 && words.length % 3 === 2) {
      const [cart, ttlMs, ...rest] = words;
      replies = await shop.hold(cart, ttlMs, linesOf(rest));
    } else if (command === 'cart-hold' && words.length >= 6 && words.length % 3 === 0) {
      const [cart, ttlMs, operation, ...rest] = words;
      replies = await shop.cartHold(cart, ttlMs, operation, linesOf(rest));
    } else if (command === 'cart-confirm' && words.length >= 3 && words.length % 2 === 1) {
      const [token, ...rest] = words;
      const lines = [];
      while (rest.length > 0) {
        const [sku, id] = rest.splice(0, 2);
        lines.push({ sku, id });
      }
      replies = await shop.cartConfirm(token, lines);
    } else if (['extend', 'confirm', 'release'].includes(command) && words.length === 3) {
      replies = [await shop[command](...words)];
    } else if (command === 'adjust' && (words.length === 4 || words.length === 5)) {
      replies = [await shop.adjust(...words)];
    } else {
      throw new Error('see the head of this file for its commands');
    }
    for (const reply of replies) console.log(`${reply[0]}: ${inWords(reply)}`);
    const done = ['HELD', 'REPLAYED', 'EXTENDED', 'CONFIRMED', 'RELEASED', 'ADJUSTED'];
    return replies.every(([word]) => done.includes(word)) ? 0 : 1;
  } catch (error) {
    console.error(error.message);
    return error instanceof OutcomeUnknown ? 75 : 2;
  } finally {
    redis.disconnect();
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  process.exitCode = await main(process.argv.slice(2));
}
