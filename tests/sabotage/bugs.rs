//! A list of realistic bugs.

/// A bug, and the test that must catch it.
pub struct Bug {
    pub what: &'static str,
    pub caught_by: Catcher,
    pub file: &'static str,
    /// Text that occurs once in the file.
    pub good: &'static str,
    pub bad: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Catcher {
    Model,
    Torture,
    Sentinel,
    Cluster,
}

impl Catcher {
    /// The name of the test target.
    #[allow(dead_code, reason = "another test includes this file for the list alone")]
    pub fn test(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Torture => "torture",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        }
    }

    /// Which of its tests; all if there are none here.
    #[allow(dead_code, reason = "another test includes this file for the list alone")]
    pub fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Cluster => &["moving::a_", "moving::only", "failing::a_primary_freezes_and_goes_on"],
            _ => &[],
        }
    }
}

const fn rule(file: &'static str, what: &'static str, good: &'static str, bad: &'static str) -> Bug {
    Bug { what, caught_by: Catcher::Model, file, good, bad }
}

const fn way(file: &'static str, what: &'static str, good: &'static str, bad: &'static str) -> Bug {
    Bug { what, caught_by: Catcher::Torture, file, good, bad }
}

const fn found(file: &'static str, what: &'static str, good: &'static str, bad: &'static str) -> Bug {
    Bug { what, caught_by: Catcher::Sentinel, file, good, bad }
}

const fn route(file: &'static str, what: &'static str, good: &'static str, bad: &'static str) -> Bug {
    Bug { what, caught_by: Catcher::Cluster, file, good, bad }
}

pub const BUGS: [Bug; 104] = [
    rule(
        "lua/hold_with_metadata.lua",
        "`hold_with_metadata` takes another request for a repeat",
        "(kept[1] or nil) ~= metadata[i] and 'metadata'",
        "kept[1] and not metadata[i] and 'metadata'",
    ),
    rule(
        "lua/hold_with_metadata.lua",
        "`hold_with_metadata` leaves the metadata out of the record",
        "call('HSET', key, 'metadata', noted)",
        "call('HLEN', key)",
    ),
    rule(
        "lua/hold_with_metadata.lua",
        "`hold_with_metadata` leaves the metadata out of the audit",
        "'active', '', 'metadata', noted)",
        "'active', '')",
    ),
    rule(
        "lua/hold.lua",
        "`hold` writes a reservation before it looks at the stock",
        "    replies[i], refused = insufficient(stock), true",
        "    call('HSET', reservation, 'cartId', cart)\n    replies[i], refused = insufficient(stock), true",
    ),
    rule(
        "lua/hold.lua",
        "`hold` does not look whether the id is taken",
        "if call('EXISTS', unpack(reservations)) > 0 then",
        "if false then",
    ),
    rule(
        "lua/hold.lua",
        "`hold` gives a unit that is not there",
        "stock.left < quantity + 0",
        "stock.left + 1 < quantity + 0",
    ),
    rule(
        "lua/hold.lua",
        "`hold` looks at the stock before the id: a repeat is refused when all is sold",
        "  if record then\n",
        "  if record and not (stock.left and stock.left < quantity + 0) then\n",
    ),
    rule(
        "lua/hold.lua",
        "`hold` of a cart, all or nothing, writes what there is",
        "made[reservation] then replies[i] = { 'WITHDRAWN' } end\n  end\n  return replies\n",
        "made[reservation] then replies[i] = { 'WITHDRAWN' } end\n  end\n",
    ),
    rule(
        "lua/hold.lua",
        "`hold` of a cart that names a SKU twice takes its units once",
        "    stock.left = stock.left - quantity\n",
        "    if not stock.taken then stock.left = stock.left - quantity end\n    stock.taken = true\n",
    ),
    rule(
        "lua/hold.lua",
        "`hold` of one id twice in a call takes its units twice",
        "if earlier then record = record_of(earlier) end",
        "",
    ),
    rule(
        "lua/hold.lua",
        "`hold` takes a repeat with another quantity for the same",
        "field = (kept[2] or record.quantity) ~= quantity and 'quantity'\n        or ",
        "field = ",
    ),
    rule(
        "lua/hold.lua",
        "`hold` does not bring the SKU's due time forward",
        "call('ZADD', due, 'LT', unpack",
        "call('ZADD', due, 'NX', unpack",
    ),
    rule(
        "lua/hold.lua",
        "`hold` takes 1e3 for a number",
        "if not s or #s > 13 or not (s == '0' or find(s, '^[1-9]%d*$')) then",
        "if not s or #s > 13 or not tonumber(s) then",
    ),
    rule(
        "lua/hold.lua",
        "`hold` on a shard takes an id of another shard",
        "if prefix ~= '' and kind == 'reservation' and not is_any then",
        "if false then",
    ),
    rule(
        "lua/sweep.lua",
        "`sweep` on a shard takes an id whose last digit alone is that of the shard",
        "format('%03x', match(prefix, '%d+'))",
        "'+' .. format('%x', match(prefix, '%d+'))",
    ),
    rule(
        "lua/audit.lua",
        "`audit` takes a number that is no shard",
        "match(prefix, '%d+') + 0 < 4096",
        "match(prefix, '%d+') + 0 < 9999",
    ),
    rule(
        "lua/cart_hold.lua",
        "`cart_hold` holds the cart although a line is short",
        "if refused or known == n then",
        "if known == n then",
    ),
    rule(
        "lua/cart_hold.lua",
        "`cart_hold` does not look whether the operation was carried out",
        "if earlier then\n  local conflict",
        "if false then\n  local conflict",
    ),
    rule(
        "lua/cart_hold.lua",
        "`cart_hold` forgets reservations that are active",
        "other.state == 'released') then",
        "other.state ~= 'confirmed') then",
    ),
    rule(
        "lua/cart_hold.lua",
        "`cart_hold` drops the list of a cart when a record of now is dropped",
        "format('%d', LONGEST_MS + keep_ms)",
        "keep_ms .. ''",
    ),
    rule(
        "lua/confirm.lua",
        "`confirm` does not look at the time: what has lapsed is sold",
        "    if record.expires <= now then",
        "    if false then",
    ),
    rule(
        "lua/confirm.lua",
        "`confirm` of what has lapsed does not give its units back",
        "'reservation_ttl_elapsed', 'available')",
        "'reservation_ttl_elapsed', 'withdrawn')",
    ),
    rule(
        "lua/confirm.lua",
        "`confirm` of a cart, all or nothing, confirms some",
        "local is_withdrawn = refused and mode == 'all'",
        "local is_withdrawn = false",
    ),
    rule(
        "lua/confirm.lua",
        "`confirm` takes anybody's token for a repeat",
        "token ~= '' and token == record.token",
        "token ~= ''",
    ),
    rule(
        "lua/confirm.lua",
        "`confirm` does not remember its token: a repeat is refused",
        "if record.token and record.token ~= '' then",
        "if false then",
    ),
    rule(
        "lua/confirm.lua",
        "`confirm` accepts the reservation of another SKU",
        "elseif record.sku ~= stock.sku then",
        "elseif false then",
    ),
    rule(
        "lua/confirm.lua",
        "`confirm` leaves what it confirmed among the active",
        "call('ZREM', stock.active, unpack(stock.ended)) == stock.live",
        "#stock.ended == stock.live",
    ),
    rule(
        "lua/confirm.lua",
        "`confirm` answers otherwise when a sweep was first to expire",
        "elseif record.reason == 'reservation_ttl_elapsed' then",
        "elseif false then",
    ),
    rule(
        "lua/confirm.lua",
        "`confirm` keeps the record for ever, whatever the operator has set",
        "if keep_ms ~= '0' then call('PEXPIRE'",
        "if false then call('PEXPIRE'",
    ),
    rule(
        "lua/release.lua",
        "`release` keeps the record for ever when the operator has set nothing",
        "or '2592000000'",
        "or '0'",
    ),
    rule("lua/extend.lua", "`extend` revives what has lapsed", "if record.expires <= now then", "if false then"),
    rule(
        "lua/extend.lua",
        "`extend` brings an expiry forward",
        "      if expires > record.expires then",
        "      if true then",
    ),
    rule(
        "lua/extend.lua",
        "`extend` does not look at the operator's limit",
        "and expires > created + most_ms then",
        "and false then",
    ),
    rule(
        "lua/extend.lua",
        "`extend` leaves the member of the active set at the first expiry",
        "    call('ZADD', stock.active, 'XX', unpack(stock.moved))\n",
        "",
    ),
    rule(
        "lua/extend.lua",
        "`extend` of a cart, all or nothing, extends some",
        "if refused and mode == 'all' then",
        "if false then",
    ),
    rule(
        "lua/hold.lua",
        "`hold` trims what others have written into the audit",
        "= call('XADD', audit, '*',",
        "= call('XADD', audit, 'MAXLEN', '5', '*',",
    ),
    rule(
        "lua/sweep.lua",
        "`sweep` takes what it expires for the next to expire",
        "if not leaving[first[i]] then",
        "if first[i] then",
    ),
    rule(
        "lua/release.lua",
        "`release` undoes a sale",
        "elseif record.state == 'active' then",
        "elseif record.state ~= 'released' then",
    ),
    rule(
        "lua/release.lua",
        "`release` gives the units to the sold ones",
        "'available', 'RELEASED'",
        "'confirmed', 'RELEASED'",
    ),
    rule("lua/release.lua", "`release` does not count its event", "  stock.version = stock.version + 1\n", ""),
    rule("lua/sweep.lua", "`sweep` expires what is not due", "elseif record.expires <= now then", "else"),
    rule(
        "lua/sweep.lua",
        "`sweep` does not give the units back",
        "'reservation_ttl_elapsed', 'available')",
        "'reservation_ttl_elapsed', 'withdrawn')",
    ),
    rule(
        "lua/sweep.lua",
        "`sweep` writes no event",
        "call('XADD', audit, '*', 'event', event,",
        "select(1, stock.last_event, 'event', event,",
    ),
    rule(
        "lua/sweep.lua",
        "`sweep` does not link its event to the one before",
        "'previous', stock.last_event, ...)",
        "'previous', '')",
    ),
    rule("lua/seed.lua", "`seed` does not wait until all holds are gone", "if live == 0 then", "if true then"),
    rule(
        "lua/seed.lua",
        "`seed` gives the units of drained holds back",
        "'inventory_reseeded', 'withdrawn')",
        "'inventory_reseeded', 'available')",
    ),
    rule(
        "lua/adjust.lua",
        "`adjust` does not look whether the operation was carried out",
        "  if earlier then\n    local conflict",
        "  if false then\n    local conflict",
    ),
    rule(
        "lua/adjust.lua",
        "`adjust` of a SKU twice in a call sees the units before the call",
        "true, after, stock.next_version + 1",
        "true, stock.left, stock.next_version + 1",
    ),
    rule(
        "lua/adjust.lua",
        "`adjust` takes units away that are not there",
        "elseif after < 0 then",
        "elseif after < -1 then",
    ),
    rule(
        "lua/adjust.lua",
        "`adjust` of several, all or none, adjusts some",
        "made[key] then replies[i] = { 'WITHDRAWN' } end\n  end\n  return replies\n",
        "made[key] then replies[i] = { 'WITHDRAWN' } end\n  end\n",
    ),
    rule(
        "lua/hold.lua",
        "`hold` compares a repeat with what its reservation was changed to",
        "(kept[2] or record.quantity) ~= quantity",
        "record.quantity ~= quantity",
    ),
    rule("lua/change.lua", "`change` forgets what was held at first", "if is_first then call(", "if true then call("),
    rule(
        "lua/change.lua",
        "`change` to more units takes units that are not there",
        "if own.more > 0 and own.more > own.left then",
        "if own.more > 0 and own.more > own.left + 1 then",
    ),
    rule(
        "lua/change.lua",
        "`change` counts the units that a reservation holds as missing for itself",
        "if own.more > 0 and own.more > own.left then",
        "if own.more > 0 and held > own.left then",
    ),
    rule(
        "lua/change.lua",
        "`change` revives what has lapsed",
        "local has_lapsed = record.expires <= now",
        "local has_lapsed = false",
    ),
    rule(
        "lua/sell.lua",
        "`sell` of a part keeps the rest reserved",
        "own.available, own.reserved = own.available + rest, own.reserved - rest",
        "rest = 0",
    ),
    rule(
        "lua/sell.lua",
        "`sell` sells what has lapsed although its units are somebody else's",
        "  if sold > own.left then",
        "  if false then",
    ),
    rule(
        "lua/sell.lua",
        "`sell` sells what somebody has released",
        "local was_expired = record.state == 'released' and record.reason == 'reservation_ttl_elapsed'",
        "local was_expired = record.state == 'released'",
    ),
    rule(
        "lua/sell.lua",
        "`sell` of what has lapsed leaves out that it had expired",
        "    append_event(own, 'expired', id, record.cartId, before, 'released', 'reservation_ttl_elapsed')\n",
        "",
    ),
    rule(
        "lua/sell.lua",
        "`sell` leaves the record of a late sale to be dropped when its expiry was to be",
        "call('PEXPIRE', reservation_key, keep_ms) else",
        "call('PTTL', reservation_key) else",
    ),
    way(
        "src/engine/sell.rs",
        "the engine sells without the token of the key",
        "&[&token, &quantity, if_expired]",
        "&[\"\", &quantity, if_expired]",
    ),
    rule(
        "lua/return.lua",
        "`return` takes back more than was sold, when it comes in parts",
        "if units > record.units - returned then",
        "if units > record.units then",
    ),
    rule(
        "lua/return.lua",
        "`return` does not look whether the operation was carried out",
        "if earlier then\n  local conflict",
        "if false then\n  local conflict",
    ),
    rule(
        "lua/return.lua",
        "`return` takes a sale before the last seed for one that is counted",
        "local is_counted = sold_at > seeded_at and",
        "local is_counted =",
    ),
    rule(
        "lua/return.lua",
        "`return` puts what is written off on sale",
        "if restock == 'restock' then\n  stock.available",
        "if true then\n  stock.available",
    ),
    rule(
        "lua/seed.lua",
        "`seed` does not look whether the operation was carried out",
        "if earlier then\n  local conflict",
        "if false then\n  local conflict",
    ),
    rule(
        "lua/seed.lua",
        "`seed` is remembered although the caller does not ask for it",
        "if once ~= '' then\n  asked.updatedAt",
        "if true then\n  asked.updatedAt",
    ),
    rule("lua/seed.lua", "`seed` does not say when it was", "call('HSET', inventory, 'seededAt', now_text)", ""),
    rule(
        "lua/repair.lua",
        "`repair` forgets what came back of a sale",
        "    if item.returned then\n",
        "    if false then\n",
    ),
    rule(
        "lua/repair.lua",
        "`repair` passes over what happened to a reservation since",
        " or by_id[event.reservationId]\n",
        "\n",
    ),
    rule(
        "lua/repair.lua",
        "`repair` of what was not there adds it to a SKU that came into being since",
        " or last_seen == ''",
        "",
    ),
    rule(
        "lua/hold.lua",
        "`hold` holds units of a SKU that has a limit for each cart",
        "elseif stock.per_cart then",
        "elseif false then",
    ),
    rule(
        "lua/hold.lua",
        "`hold` holds the units that are kept back",
        "found and stock.available - (stock.safety or 0)",
        "found and stock.available",
    ),
    rule(
        "lua/hold.lua",
        "`hold` holds for longer than the rules of the SKU allow",
        "and ttl + 0 > stock.max_ttl then",
        "and false then",
    ),
    rule(
        "lua/cart_hold.lua",
        "`cart_hold` does not count what a cart has bought already",
        "elseif other.state == 'confirmed' then",
        "elseif false then",
    ),
    rule(
        "lua/cart_hold.lua",
        "`cart_hold` counts what has lapsed as if the cart had it",
        "if other.state == 'active' and other.expires > now then",
        "if other.state == 'active' then",
    ),
    rule(
        "lua/change.lua",
        "`change` to more units does not look at the limit of the cart",
        "if own.more > 0 and own.per_cart then",
        "if false then",
    ),
    rule(
        "lua/sell.lua",
        "`sell` of what has lapsed does not look at the limit of the cart",
        "  if own.per_cart then",
        "  if false then",
    ),
    rule(
        "lua/extend.lua",
        "`extend` goes beyond the longest hold of the SKU",
        "math.min(max_ms, stock.max_ttl or max_ms)",
        "max_ms",
    ),
    rule(
        "lua/rules.lua",
        "`rules` that change nothing are told again",
        "if rules ~= (stock.rules or '') then",
        "if true then",
    ),
    rule(
        "lua/seed.lua",
        "`seed` does not tell the rules again",
        "  if stock.rules then append_event(",
        "  if false then append_event(",
    ),
    way(
        "src/engine/hold.rs",
        "the engine asks again with a new id when a reply is lost",
        "            let Some((outcome, lapsed)) = self.hold_once(&keys, id, &request).await? else {\n",
        "            let Some((outcome, lapsed)) = (match self.hold_once(&keys, id, &request).await {\n                \
         Err(Error::Unknown(_)) => self.hold_once(&keys, ReservationId::mint(keys.shard.number), &request).await?,\n                \
         other => other?,\n            }) else {\n",
    ),
    way(
        "src/engine/error.rs",
        "the engine says that nothing was done when a reply is lost",
        "Failure::NoReply(_) => Self::Unknown(text)",
        "Failure::NoReply(_) => Self::Unavailable(text)",
    ),
    way(
        "src/engine/hold.rs",
        "the engine makes up an id for a request with a key",
        "Some(key) => ReservationId::of_hold(key, &request.sku, keys.shard.number)",
        "Some(_) => ReservationId::mint(keys.shard.number)",
    ),
    way(
        "src/engine/adjust.rs",
        "the engine makes up an operation for an adjustment with a key",
        "Some(key) => OperationId::from_idempotency_key(key, sku, turn)",
        "Some(_) => OperationId::mint()",
    ),
    way(
        "src/engine/adjust.rs",
        "the engine does not ask to remember an adjustment with a key",
        "word(key.is_some(), \"once\")",
        "word(false, \"once\")",
    ),
    way(
        "src/engine/seed.rs",
        "the engine makes up an operation for a seed with a key",
        "key.map_or_else(OperationId::mint, |key| OperationId::of_seed(key, sku))",
        "OperationId::mint()",
    ),
    way(
        "src/engine/change.rs",
        "the engine makes up an operation for a change with a key",
        "Some(key) => (OperationId::of_change(key, id), \"once\")",
        "Some(_) => (OperationId::mint(), \"once\")",
    ),
    way(
        "src/engine/returns.rs",
        "the engine makes up an operation for a return with a key",
        "Some(key) => OperationId::of_return(key, request.id)",
        "Some(_) => OperationId::mint()",
    ),
    way(
        "src/engine/cart_hold.rs",
        "the engine makes up the ids of a cart with a key",
        "Some(key) => ReservationId::of_cart_line(key, cart, &line.sku, keys.shard.number)",
        "Some(_) => ReservationId::mint(keys.shard.number)",
    ),
    way(
        "src/engine/cart_settle.rs",
        "the engine settles a cart without a token",
        "key.map(|key| key.cart_token(cart)).unwrap_or_default()",
        "key.filter(|_| false).map(|key| key.cart_token(cart)).unwrap_or_default()",
    ),
    way(
        "src/engine/cart_settle.rs",
        "the engine leaves out a reservation of a cart",
        "about.cloned().collect();",
        "about.rev().take(3).cloned().collect();",
    ),
    way(
        "src/engine/by_id.rs",
        "the engine asks again without a token when a reply is lost, and tells the second answer",
        "        Ok(of_shard(each, &keys).submit(item(&keys, id, vec![argument])).await?)\n",
        "        let _ = argument;\n        let script = of_shard(each, &keys);\n        let item = || item(&keys, id, vec![String::new()]);\n        \
         match script.submit(item()).await {\n            \
         Err(crate::redis::Failure::NoReply(_)) => Ok(script.submit(item()).await?),\n            \
         other => Ok(other?),\n        }\n",
    ),
    way(
        "src/engine/group_commit.rs",
        "group commit gives the answers to the wrong requests",
        "requests.into_iter().zip(replies)",
        "requests.into_iter().rev().zip(replies)",
    ),
    way(
        "src/scripts.rs",
        "the loader does not load what Redis has lost",
        "if code == \"NOSCRIPT\" =>",
        "if code == \"NO SCRIPT\" =>",
    ),
    way(
        "src/redis/connector.rs",
        "a connection that gives no reply is kept",
        "fn give_up(&self) {\n        self.lost.store(true, Ordering::Release);\n",
        "fn give_up(&self) {\n        self.lost.load(Ordering::Acquire);\n",
    ),
    found(
        "src/redis/sentinel.rs",
        "whichever sentinel answers last names the master",
        "if master.epoch > known.epoch ||",
        "if master.epoch != known.epoch ||",
    ),
    found(
        "src/redis/sentinel.rs",
        "one sentinel counts as a majority",
        "let majority = self.each.len() / 2 + 1;",
        "let majority = self.each.len().min(1);",
    ),
    found(
        "src/redis/sentinel.rs",
        "what a sentinel names counts as a master, whatever it says itself",
        "if role == \"master\" {",
        "if !role.is_empty() {",
    ),
    found(
        "src/redis/connector.rs",
        "a connection to an old master is kept when a sentinel names another",
        "                outdated.await;\n",
        "                drop(outdated);\n                pending::<()>().await;\n",
    ),
    route(
        "src/redis/cluster.rs",
        "a call to a cluster that got no reply is sent again",
        "Err(Failure::Unreachable(why)) => Failure",
        "Err(Failure::Unreachable(why) | Failure::NoReply(why)) => Failure",
    ),
    route(
        "src/redis/cluster.rs",
        "when a node of a cluster refuses one of several calls, all are sent again",
        "units.iter().zip(tried).map(|(unit, tried)| self",
        "units.iter().zip(tried).map(|(unit, tried)| (unit, tried.and(None))).map(|(unit, tried)| self",
    ),
    route(
        "src/redis/cluster.rs",
        "a call that follows a key of a slot that moves does not ask for it",
        "all.cmd(\"ASKING\")",
        "all.cmd(\"PING\")",
    ),
    route(
        "src/redis/cluster.rs",
        "a pipeline that is refused in part loses its order",
        "tried.filter(|_| is_in_order)",
        "tried.filter(|_| replies.capacity() > 0 || is_in_order)",
    ),
];
