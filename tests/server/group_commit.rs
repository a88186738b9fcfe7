//! Requests that arrive during a call are sent together, and each gets the outcome that it would have got alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cmd;
use stockhold::engine::{Engine, Error, Hold, HoldRequest, Options, Quantity, SeedQuantity, Settle, Ttl};
use stockhold::keys::{CartId, IdempotencyKey, ReservationId, Sku};
use stockhold::redis::{CALL_TIMEOUT, Redis};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::sleep;

use crate::support::invariants::{History, assert_invariants};
use crate::support::keys;
use crate::support::redis_server::RedisServer;

/// More than the number that may wait.
const CROWD: usize = 5000;

struct EngineFixture {
    redis: RedisServer,
    engine: Arc<Engine>,
}

impl EngineFixture {
    /// An engine on its own Redis, with 100 units of tea.
    async fn open() -> Self {
        Self::open_on(RedisServer::start()).await
    }

    async fn open_on(redis: RedisServer) -> Self {
        let engine = engine_on(redis.open(&redis.url()));
        engine.load_scripts().await.unwrap();
        engine.seed(&sku("tea"), SeedQuantity::new(100).unwrap(), None).await.unwrap();
        cmd("CONFIG").arg("RESETSTAT").exec_async(&mut redis.connection().await).await.unwrap();
        Self { redis, engine: Arc::new(engine) }
    }

    /// Freezes Redis and sends it a call, so that all further calls have to wait.
    async fn busy(&self) -> JoinHandle<Result<Hold, Error>> {
        self.redis.stop_process();
        let first = self.hold("tea", 1, None);
        settle_down().await;
        first
    }

    fn hold(&self, of: &str, quantity: u64, key: Option<&str>) -> JoinHandle<Result<Hold, Error>> {
        hold_by(&self.engine, of, quantity, key)
    }

    /// Holds one unit of each of these, in one call if they are few. Returns the outcomes, and the number of calls
    /// after the first.
    async fn hold_together(&self, skus: &[&str]) -> (Vec<Result<Hold, Error>>, u64) {
        let before = self.calls().await;
        let first = self.busy().await;
        let holds: Vec<_> = skus.iter().map(|sku| self.hold(sku, 1, None)).collect();
        settle_down().await;
        self.redis.continue_process();
        first.await.unwrap().unwrap();
        let mut outcomes = Vec::new();
        for hold in holds {
            outcomes.push(hold.await.unwrap());
        }
        (outcomes, self.calls().await - before - 1)
    }

    async fn plant(&self, command: &str) {
        let words: Vec<_> = command.split(' ').collect();
        cmd(words[0]).arg(&words[1..]).exec_async(&mut self.connection().await).await.unwrap();
    }

    async fn calls(&self) -> u64 {
        let mut connection = self.redis.connection().await;
        let stats: String = cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    async fn connection(&self) -> MultiplexedConnection {
        self.redis.connection().await
    }
}

/// Passes `carried` script calls on to Redis. Later calls on the same connection are lost without an error.
struct LossyNetwork {
    address: SocketAddr,
    /// Script calls that were sent.
    calls: Arc<AtomicUsize>,
}

impl LossyNetwork {
    async fn start(redis_port: u16, carried: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, calls) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&calls);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let redis = TcpStream::connect(("127.0.0.1", redis_port)).await.unwrap();
                tokio::spawn(carry(client, redis, Arc::clone(&counter), carried));
            }
        });
        Self { address, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

async fn carry(client: TcpStream, redis: TcpStream, calls: Arc<AtomicUsize>, carried: usize) {
    const WORD: &[u8] = b"EVALSHA";
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_redis, mut to_redis) = redis.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_redis, &mut to_client).await });
    let (mut read, mut seen, mut is_lost) = (vec![0; 1 << 16], Vec::new(), false);
    while let Ok(length @ 1..) = from_client.read(&mut read).await {
        // The word may arrive in two parts.
        seen.extend_from_slice(&read[..length]);
        let found = seen.windows(WORD.len()).filter(|window| *window == WORD).count();
        seen.drain(..seen.len().saturating_sub(WORD.len() - 1));
        let sent = calls.fetch_add(found, Ordering::SeqCst) + found;
        is_lost |= found > 0 && sent > carried;
        if !is_lost {
            to_redis.write_all(&read[..length]).await.unwrap();
        }
    }
}

fn hold_by(engine: &Arc<Engine>, of: &str, quantity: u64, key: Option<&str>) -> JoinHandle<Result<Hold, Error>> {
    let engine = Arc::clone(engine);
    let request = HoldRequest {
        cart: CartId::parse("cart-1").unwrap(),
        sku: sku(of),
        quantity: Quantity::new(quantity).unwrap(),
        ttl: Ttl::new(600).ok(),
        metadata: None,
        idempotency_key: key.map(|key| IdempotencyKey::parse(key).unwrap()),
    };
    tokio::spawn(async move { engine.hold(request).await })
}

fn engine_on(redis: Redis) -> Engine {
    Engine::on(keys::LAYOUT.clone(), redis, Options::default())
}

fn sku(name: &str) -> Sku {
    Sku::parse(name).unwrap()
}

/// Lets all other tasks of this thread run as far as they can, and lets written bytes reach Redis's socket.
async fn settle_down() {
    for _ in 0..100 {
        yield_now().await;
    }
    sleep(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn a_request_is_sent_at_once_and_those_that_arrive_meanwhile_together() {
    let fixture = EngineFixture::open().await;
    for _ in 0..3 {
        fixture.hold("tea", 1, None).await.unwrap().unwrap();
    }
    assert_eq!(fixture.calls().await, 3, "nobody waits for company");

    let first = fixture.busy().await;
    let others: Vec<_> = (0..50).map(|_| fixture.hold("tea", 1, None)).collect();
    settle_down().await;
    fixture.redis.continue_process();
    for hold in others.into_iter().chain([first]) {
        assert!(matches!(hold.await.unwrap(), Ok(Hold::Held(_))));
    }
    assert_eq!(fixture.calls().await, 3 + 1 + 1, "one on its own, fifty in one call");
    assert_invariants(&mut fixture.connection().await, History::Whole).await;
}

#[tokio::test]
async fn each_gets_its_own_outcome_and_a_bad_one_affects_no_other() {
    let fixture = EngineFixture::open().await;
    let mut connection = fixture.connection().await;
    fixture.engine.seed(&sku("cup"), SeedQuantity::new(5).unwrap(), None).await.unwrap();
    let first = fixture.busy().await;
    let held = fixture.hold("tea", 2, Some("order-1"));
    let again = fixture.hold("tea", 2, Some("order-1"));
    let other = fixture.hold("tea", 3, Some("order-1"));
    let unknown = fixture.hold("pot", 1, None);
    let sold_out = fixture.hold("cup", 6, None);
    let fits = fixture.hold("cup", 5, None);
    settle_down().await;
    fixture.redis.continue_process();
    first.await.unwrap().unwrap();
    // One of the two is a replay of the other, whichever came first.
    let mut pair = [held.await.unwrap().unwrap(), again.await.unwrap().unwrap()];
    pair.sort_by_key(|hold| matches!(hold, Hold::Replayed(_)));
    let [Hold::Held(one), Hold::Replayed(same)] = &pair else { panic!("{pair:?}") };
    assert_eq!(one.id, same.id);
    assert!(matches!(other.await.unwrap(), Ok(Hold::Conflict { .. })));
    assert!(matches!(unknown.await.unwrap(), Ok(Hold::UnknownSku)));
    assert!(matches!(sold_out.await.unwrap(), Ok(Hold::Insufficient { available: 5 })));
    assert!(matches!(fits.await.unwrap(), Ok(Hold::Held(_))));
    assert_invariants(&mut connection, History::Whole).await;

    // Somebody wrote to a SKU by hand: only requests for this SKU fail.
    cmd("HSET").arg(keys::inventory("cup")).arg("available").arg("many").exec_async(&mut connection).await.unwrap();
    let first = fixture.busy().await;
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for _ in 0..10 {
        good.push(fixture.hold("tea", 1, None));
        bad.push(fixture.hold("cup", 1, None));
    }
    settle_down().await;
    fixture.redis.continue_process();
    first.await.unwrap().unwrap();
    for (good, bad) in good.into_iter().zip(bad) {
        assert!(matches!(good.await.unwrap(), Ok(Hold::Held(_))));
        assert!(matches!(bad.await.unwrap(), Err(Error::Broken(_))));
    }
}

/// Whether Redis names the damaged key or not: it costs the other requests a few calls once, and then none.
#[tokio::test]
async fn a_damaged_sku_is_set_apart() {
    let [tea, cup] = keys::in_one_shard(["tea", "cup"]);
    let mut one_bad = [tea; 16];
    one_bad[9] = cup;
    let mut some_bad = one_bad;
    some_bad[2..6].fill(cup);
    let bad_count = format!("HSET {} available many", keys::inventory(cup));
    let bad_set = format!("SET {} x", keys::active(cup));
    for (skus, damage, calls_at_first) in [
        // A refusal that names the SKU, and a second call for the others.
        (some_bad, &bad_count, 2),
        (one_bad, &bad_count, 2),
        // A refusal that names nothing: halves, quarters and so on, where one half of each pair succeeds.
        (one_bad, &bad_set, 1 + 4 * 2),
    ] {
        let fixture = EngineFixture::open().await;
        fixture.engine.seed(&sku(cup), SeedQuantity::new(5).unwrap(), None).await.unwrap();
        fixture.plant(damage).await;
        for expected in [calls_at_first, 2] {
            let (outcomes, calls) = fixture.hold_together(&skus).await;
            for (sku, outcome) in skus.iter().zip(&outcomes) {
                if *sku == tea {
                    assert!(matches!(outcome, Ok(Hold::Held(_))), "{damage}: {outcome:?}");
                } else {
                    assert!(matches!(outcome, Err(Error::Broken(_))), "{damage}: {outcome:?}");
                }
            }
            assert_eq!(calls, expected, "{damage}");
        }
        // After the repair it is served at once, although it is still set apart.
        fixture.plant(&format!("DEL {}", keys::active(cup))).await;
        fixture.plant(&format!("HSET {} available 5", keys::inventory(cup))).await;
        assert!(matches!(fixture.hold(cup, 1, None).await.unwrap(), Ok(Hold::Held(_))));
        assert_invariants(&mut fixture.connection().await, History::Whole).await;
    }
}

/// A damaged record is not a reason to set its SKU apart.
#[tokio::test]
async fn a_damaged_record_affects_no_other_of_its_sku() {
    let fixture = EngineFixture::open().await;
    let Ok(Hold::Held(record)) = fixture.hold("tea", 1, Some("order-1")).await.unwrap() else { panic!() };
    fixture.plant(&format!("HDEL {} cartId", keys::reservation(record.id))).await;
    for calls in [3, 3] {
        let before = fixture.calls().await;
        let first = fixture.busy().await;
        let bad = fixture.hold("tea", 1, Some("order-1"));
        let good: Vec<_> = (0..9).map(|_| fixture.hold("tea", 1, None)).collect();
        settle_down().await;
        fixture.redis.continue_process();
        first.await.unwrap().unwrap();
        assert!(matches!(bad.await.unwrap(), Err(Error::Broken(_))));
        for hold in good {
            assert!(matches!(hold.await.unwrap(), Ok(Hold::Held(_))));
        }
        assert_eq!(fixture.calls().await - before, calls);
    }
}

/// Too few units are reserved for all of them: those that can be settled are settled, as if each had been sent alone.
#[tokio::test]
async fn as_many_confirms_succeed_as_units_are_reserved() {
    let fixture = EngineFixture::open().await;
    fixture.engine.seed(&sku("cup"), SeedQuantity::new(5).unwrap(), None).await.unwrap();
    let mut ids = Vec::new();
    for of in ["tea", "tea", "tea", "tea", "cup"] {
        let Ok(Hold::Held(record)) = fixture.hold(of, 1, None).await.unwrap() else { panic!() };
        ids.push(record.id);
    }
    for change in ["reserved -1", "available 1"] {
        fixture.plant(&format!("HINCRBY {} {change}", keys::inventory("tea"))).await;
    }
    let mut settling = JoinSet::new();
    for id in ids {
        let engine = Arc::clone(&fixture.engine);
        settling.spawn(async move { engine.confirm(id, None).await });
    }
    let outcomes = settling.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Ok(Settle::Settled(_)))).count(), 4, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Broken(_)))).count(), 1, "{outcomes:?}");
}

/// After a refusal the outcome is certain, so the others are sent again. After a lost reply it is not: nothing is sent
/// again.
#[tokio::test]
async fn nothing_is_sent_again_after_a_lost_reply() {
    // The first call, and the one that is refused.
    const CARRIED: usize = 2;
    let [tea, cup] = keys::in_one_shard(["tea", "cup"]);
    let bad_count = format!("HSET {} available many", keys::inventory(cup));
    let bad_set = format!("SET {} x", keys::active(cup));
    for (damage, most_unknown) in [(&bad_count, 10), (&bad_set, 6)] {
        let fixture = EngineFixture::open_on(RedisServer::start_plain()).await;
        fixture.engine.seed(&sku(cup), SeedQuantity::new(5).unwrap(), None).await.unwrap();
        fixture.plant(damage).await;
        let network = LossyNetwork::start(fixture.redis.port(), CARRIED).await;
        let engine = Arc::new(engine_on(Redis::open(&format!("redis://{}", network.address)).unwrap()));
        engine.load_scripts().await.unwrap();

        fixture.redis.stop_process();
        let first = hold_by(&engine, tea, 1, None);
        settle_down().await;
        let bad = hold_by(&engine, cup, 1, None);
        let good: Vec<_> = (0..10).map(|_| hold_by(&engine, tea, 1, None)).collect();
        settle_down().await;
        fixture.redis.continue_process();
        first.await.unwrap().unwrap();
        let mut outcomes = vec![bad.await.unwrap()];
        for hold in good {
            outcomes.push(hold.await.unwrap());
        }
        let unknown = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Unknown(_)))).count();
        let not_done =
            outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Unavailable(_) | Error::Broken(_))));
        assert!((1..=most_unknown).contains(&unknown), "{damage}: {outcomes:?}");
        assert_eq!(unknown + not_done.count(), outcomes.len(), "{damage}: {outcomes:?}");
        assert_eq!(network.calls(), CARRIED + 1, "{damage}: only one call was lost, and none was sent after it");
    }
}

#[tokio::test]
async fn confirms_and_releases_share_calls_too() {
    let fixture = EngineFixture::open().await;
    let mut ids: Vec<ReservationId> = Vec::new();
    for _ in 0..40 {
        let Hold::Held(record) = fixture.hold("tea", 1, None).await.unwrap().unwrap() else { panic!() };
        ids.push(record.id);
    }
    let before = fixture.calls().await;
    let mut settling = JoinSet::new();
    for (n, id) in ids.into_iter().enumerate() {
        let engine = Arc::clone(&fixture.engine);
        settling.spawn(async move {
            if n % 2 == 0 { engine.confirm(id, None).await } else { engine.release(id, None).await }
        });
    }
    for settled in settling.join_all().await {
        assert!(matches!(settled, Ok(Settle::Settled(_))), "{settled:?}");
    }
    let calls = fixture.calls().await - before;
    assert!(calls < 40, "{calls} calls for 40 requests that came at once");
    let stock = fixture.engine.stock(&sku("tea"), stockhold::engine::ActiveLimit::NONE).await.unwrap().unwrap();
    assert_eq!((stock.available, stock.reserved, stock.confirmed), (80, 0, 20));
    assert_invariants(&mut fixture.connection().await, History::Whole).await;
}

#[tokio::test]
async fn a_cancelled_request_is_not_sent() {
    let fixture = EngineFixture::open().await;
    let first = fixture.busy().await;
    let given_up = fixture.hold("tea", 50, None);
    let neighbour = fixture.hold("tea", 2, None);
    settle_down().await;
    given_up.abort();
    settle_down().await;
    fixture.redis.continue_process();
    first.await.unwrap().unwrap();
    assert!(matches!(neighbour.await.unwrap(), Ok(Hold::Held(_))));
    let stock = fixture.engine.stock(&sku("tea"), stockhold::engine::ActiveLimit::NONE).await.unwrap().unwrap();
    assert_eq!(stock.reserved, 3);
}

/// A call that was sent and not answered is unknown. A request that was still waiting was certainly not done.
#[tokio::test]
async fn a_request_that_gets_no_turn_in_time_was_not_done() {
    let fixture = EngineFixture::open().await;
    let first = fixture.busy().await;
    let waiting: Vec<_> = (0..20).map(|n| fixture.hold("tea", 2, Some(&format!("order-{n}")))).collect();
    assert!(matches!(first.await.unwrap(), Err(Error::Unknown(_))));
    let mut none = Vec::new();
    for (n, hold) in waiting.into_iter().enumerate() {
        match hold.await.unwrap() {
            Err(Error::Unavailable(_)) => none.push(n),
            Err(Error::Unknown(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    fixture.redis.continue_process();
    sleep(CALL_TIMEOUT / 2).await;
    let mut connection = fixture.connection().await;
    for n in none {
        let key = IdempotencyKey::parse(&format!("order-{n}")).unwrap();
        let reservation = keys::reservation(ReservationId::of_hold(&key, &sku("tea"), keys::shard_of("tea").number));
        assert!(!cmd("EXISTS").arg(reservation).query_async::<bool>(&mut connection).await.unwrap());
    }
    assert_invariants(&mut connection, History::Whole).await;
}

#[tokio::test]
async fn too_many_requests_are_refused_at_once() {
    let fixture = EngineFixture::open().await;
    let first = fixture.busy().await;
    let crowd: Vec<_> = (0..CROWD).map(|_| fixture.hold("tea", 1, None)).collect();
    settle_down().await;
    let turned_away = crowd.iter().filter(|hold| hold.is_finished()).count();
    assert!((1..CROWD).contains(&turned_away), "{turned_away} of {CROWD} have their answer while Redis is silent");
    fixture.redis.continue_process();
    first.await.unwrap().unwrap();
    let mut held = 1;
    for hold in crowd {
        match hold.await.unwrap() {
            Ok(Hold::Held(_)) => held += 1,
            Ok(Hold::Insufficient { .. }) | Err(Error::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(held, 100);
}
