// Buyers in Node, until standard input ends. One line for each answer: its word, and the id that it is about.

import { randomInt, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, Stockhold } from './stockhold.mjs';

const BUYERS = 8;
const PAUSE_MS = 2;
let closing = false;
process.stdin.on('end', () => { closing = true; }).resume();

const redis = connect();
const shop = new Stockhold(redis);

async function buy() {
  while (!closing) {
    await sleep(PAUSE_MS);
    const [id, token] = [randomUUID(), randomUUID()];
    const ttlMs = randomInt(2) === 0 ? 20 : 60_000;
    const [[word]] = await shop.hold('node', ttlMs, [{ sku: 'tea', quantity: randomInt(1, 4), id }]);
    console.log(`${word} ${id}`);
    if (word === 'HELD' || word === 'REPLAYED') {
      const [settled] = await shop[randomInt(200) === 0 ? 'confirm' : 'release']('tea', id, token);
      console.log(`${settled} ${id}`);
    }
  }
}

await Promise.all(Array.from({ length: BUYERS }, buy));
redis.disconnect();
