// The stack of the well-known tutorial: Express and WATCH. The stock is read, checked and written in a transaction, which
// Redis refuses if another client wrote the stock meanwhile; then all of it is tried again, up to five times.
import { randomUUID } from 'node:crypto';
import express from 'express';
import { createClientPool, WatchError } from 'redis';

const ATTEMPTS = 5;
const TTL_SECONDS = 600;
const AUDIT = 'inventory:audit';

const port = Number(process.env.PORT ?? 3000);
const url = process.env.REDIS_URL ?? 'redis://127.0.0.1:6379';
// What a connection watches is its own: there is one for each of the clients that `make bench` has.
const redis = await createClientPool({ url }, { minimum: 1, maximum: 32 }).on('error', console.error).connect();

class Refused extends Error {
  constructor(status, code) {
    super(code);
    Object.assign(this, { status, code });
  }
}

const stockKey = (sku) => `inventory:${sku}`;
const activeKey = (sku) => `inventory:${sku}:active`;
const reservationKey = (id) => `reservation:${id}`;

/** Tries `attempt`, which watches, reads, checks and writes, on a connection that nobody else uses. */
async function optimistic(attempt) {
  return redis.execute(async (client) => {
    for (let tried = 0; tried < ATTEMPTS; tried += 1) {
      try {
        return await attempt(client);
      } catch (error) {
        if (error instanceof WatchError) continue;
        // What a refusal leaves watched would be watched by the next request, too.
        await client.unwatch();
        throw error;
      }
    }
    throw new Refused(409, 'contention');
  });
}

const event = (name, id, record, counts) => ({
  event: name,
  reservationId: id,
  cartId: record.cartId,
  sku: record.sku,
  quantity: record.quantity,
  state: record.state,
  happenedAt: record.updatedAt,
  available: String(counts.available),
  reserved: String(counts.reserved),
  confirmed: String(counts.confirmed),
});

/** The stock as numbers. */
async function readStock(client, sku) {
  const stock = await client.hGetAll(stockKey(sku));
  if (stock.available === undefined) throw new Refused(404, 'unknown_sku');
  const counts = ['available', 'reserved', 'confirmed'].map((name) => [name, Number(stock[name])]);
  return Object.fromEntries(counts);
}

const stored = (counts, now) => ({
  available: String(counts.available),
  reserved: String(counts.reserved),
  confirmed: String(counts.confirmed),
  updatedAt: String(now),
});

const hold = (cartId, sku, quantity, ttlSeconds) =>
  optimistic(async (client) => {
    await client.watch(stockKey(sku));
    const counts = await readStock(client, sku);
    if (counts.available < quantity) throw new Refused(409, 'insufficient_inventory');
    counts.available -= quantity;
    counts.reserved += quantity;
    const [id, now] = [randomUUID(), Date.now()];
    const expiresAt = now + ttlSeconds * 1000;
    const record = {
      cartId,
      sku,
      quantity: String(quantity),
      state: 'active',
      expiresAt: String(expiresAt),
      createdAt: String(now),
      updatedAt: String(now),
    };
    await client
      .multi()
      .hSet(stockKey(sku), stored(counts, now))
      .hSet(reservationKey(id), record)
      .zAdd(activeKey(sku), { score: expiresAt, value: id })
      .xAdd(AUDIT, '*', event('hold', id, record, counts))
      .exec();
    return { reservationId: id, ...record, quantity };
  });

const settle = (id, name, state, pool) =>
  optimistic(async (client) => {
    await client.watch(reservationKey(id));
    const record = { ...(await client.hGetAll(reservationKey(id))) };
    if (record.state === undefined) throw new Refused(404, 'not_found');
    const now = Date.now();
    if (record.state !== 'active' || Number(record.expiresAt) <= now) throw new Refused(409, 'reservation_not_active');
    await client.watch(stockKey(record.sku));
    const counts = await readStock(client, record.sku);
    const quantity = Number(record.quantity);
    counts.reserved -= quantity;
    counts[pool] += quantity;
    Object.assign(record, { state, updatedAt: String(now) });
    await client
      .multi()
      .hSet(stockKey(record.sku), stored(counts, now))
      .hSet(reservationKey(id), { state, updatedAt: String(now) })
      .zRem(activeKey(record.sku), id)
      .xAdd(AUDIT, '*', event(name, id, record, counts))
      .exec();
    return { reservationId: id, ...record, quantity };
  });

/** One round trip for each active hold, as the tutorial has it. */
async function inventory(sku) {
  const counts = await readStock(redis, sku);
  const active = [];
  for (const id of await redis.zRange(activeKey(sku), 0, -1)) {
    active.push({ reservationId: id, ...(await redis.hGetAll(reservationKey(id))) });
  }
  return { sku, ...counts, active };
}

const app = express();
app.use(express.json());
app.post('/api/inventory/seed', async ({ body: { sku, quantity } }, response) => {
  await redis.hSet(stockKey(sku), stored({ available: quantity, reserved: 0, confirmed: 0 }, Date.now()));
  response.json({ sku, available: quantity, reserved: 0, confirmed: 0 });
});
app.get('/api/inventory/:sku', async (request, response) => response.json(await inventory(request.params.sku)));
app.post('/api/reservations/hold', async ({ body: { cartId, sku, quantity, ttlSeconds } }, response) => {
  response.json(await hold(cartId, sku, quantity, ttlSeconds ?? TTL_SECONDS));
});
app.post('/api/reservations/:id/confirm', async (request, response) => {
  response.json(await settle(request.params.id, 'confirm', 'confirmed', 'confirmed'));
});
app.post('/api/reservations/:id/release', async (request, response) => {
  response.json(await settle(request.params.id, 'release', 'released', 'available'));
});
app.use((error, _request, response, _next) => {
  if (!(error instanceof Refused)) console.error(error);
  response.status(error.status ?? 500).json({ code: error.code ?? 'internal' });
});
app.listen(port, '127.0.0.1', () => console.log(`listens on http://127.0.0.1:${port}`));
