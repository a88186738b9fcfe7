// Looks at the board in a real browser, over the browser's DevTools protocol.
// node driver.mjs CHROMIUM FOLDER URL GUARDED_URL TOKEN
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';

const [chromium, folder, url, guarded, token] = process.argv.slice(2);
const PATIENCE_MS = 60_000;
const EVIL = '<img/src=x/onerror=window.hacked=1>';

const browser = spawn(
  chromium,
  ['--headless=new', '--remote-debugging-pipe', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', `--user-data-dir=${folder}/profile`, 'about:blank'],
  { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
);
process.on('exit', () => browser.kill('SIGKILL'));

const waiting = new Map();
const complaints = [];
const hosts = new Set();
let number = 0;
let rest = '';
browser.stdio[4].setEncoding('utf8').on('data', (data) => {
  const messages = (rest + data).split('\0');
  rest = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    if (message.id) {
      waiting.get(message.id)(message);
      waiting.delete(message.id);
    } else if (message.method === 'Runtime.exceptionThrown') {
      complaints.push(JSON.stringify(message.params.exceptionDetails));
    } else if (message.method === 'Log.entryAdded') {
      complaints.push(`${message.params.entry.text} ${message.params.entry.url}`);
    } else if (message.method === 'Network.requestWillBeSent') {
      hosts.add(new URL(message.params.request.url).host);
    }
  }
});

async function send(method, params = {}, sessionId = undefined) {
  number += 1;
  const id = number;
  const answered = new Promise((resolve) => waiting.set(id, resolve));
  browser.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  const { result, error } = await answered;
  assert.equal(error, undefined, `${method}: ${JSON.stringify(error)}`);
  return result;
}

const { targetInfos } = await send('Target.getTargets');
const { targetId } = targetInfos.find(({ type }) => type === 'page');
const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
const page = (method, params) => send(method, params, sessionId);
for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await page(`${domain}.enable`);

async function evaluate(expression) {
  const { result, exceptionDetails } = await page('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
  assert.equal(exceptionDetails, undefined, `${expression}: ${JSON.stringify(exceptionDetails)}`);
  return result.value;
}

async function until(expression) {
  for (const deadline = Date.now() + PATIENCE_MS; ;) {
    // While a page is loaded, nothing of it is there yet.
    if (await evaluate(`(() => { try { return Boolean(${expression}); } catch { return false; } })()`)) return;
    if (Date.now() > deadline) throw new Error(`never so: ${expression}; the page: ${await evaluate('document.body.innerText.slice(0, 2000)')}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function look(width, height, isPhone, scheme) {
  await page('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: isPhone });
  await page('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
}

async function picture(name) {
  await new Promise((resolve) => setTimeout(resolve, 700));
  const { data } = await page('Page.captureScreenshot', { format: 'png' });
  writeFileSync(`${folder}/${name}.png`, Buffer.from(data, 'base64'));
}

async function hold(sku, cartId, quantity) {
  const body = JSON.stringify({ cartId, sku, quantity, ttlSeconds: 300 });
  const answer = await fetch(`${url}/api/reservations/hold`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
  assert.equal(answer.status, 200, await answer.text());
}

const search = (text) => evaluate(`(() => { const it = at('search'); it.value = ${JSON.stringify(text)}; it.dispatchEvent(new Event('input')); })()`);
const first = "document.querySelector('#rows li:not([hidden]) button')";

// All SKUs are there, as few elements.
await look(1280, 800, false, 'light');
await page('Page.navigate', { url });
await until("at('count')?.textContent === '10001 of 10001' && at('link').textContent === 'live' && at('health').textContent === 'ready'");

// A hold is seen.
await hold('sku-00042', '<b>cart</b>', 3);
const called = performance.now();
await until("at('feed').textContent.includes('3 × sku-00042')");
console.log(`a hold was seen after ${Math.round(performance.now() - called)} ms`);
for (let cart = 0; cart < 8; cart += 1) await hold(`sku-0000${cart}`, `cart-${cart}`, 1 + cart);
await until("at('feed').textContent.includes('8 × sku-00007')");
await evaluate("choose('sku-00007')");
await until("document.querySelectorAll('#holds li b').length === 1");
await look(960, 560, false, 'light');
await picture('board');
await look(1280, 800, false, 'light');
await hold(EVIL, EVIL, 5);
await until(`at('feed').textContent.includes(${JSON.stringify(`5 × ${EVIL}`)})`);
await until("document.querySelector('#rows .name').isConnected && " + first + ".querySelector('.counts').textContent.includes('reserved')");

// The most contended first.
await until(`[...document.querySelectorAll('#rows li:not([hidden])')].sort((a, b) => parseInt(a.style.top) - parseInt(b.style.top)).find((it) => it.getAttribute('aria-posinset') === '1').textContent.startsWith(${JSON.stringify(EVIL)})`);

// Text is text.
await search(EVIL);
await until("at('count').textContent === '1 of 10001'");
await evaluate(`${first}.click()`);
await until(`at('holds').textContent.includes(${JSON.stringify(EVIL)})`);
assert.equal(await evaluate("document.querySelector('#holds li span').textContent"), EVIL);
assert.equal(await evaluate("document.querySelectorAll('main img, main b b').length"), 0);
assert.equal(await evaluate('window.hacked'), undefined);

// Holds count down.
await search('sku-00042');
await evaluate(`${first}.click()`);
await until("at('holds').textContent.includes('<b>cart</b>')");
const left = await evaluate("document.querySelector('#holds .left').textContent");
assert.match(left, /^[45]:\d\d$/);
await until(`document.querySelector('#holds .left').textContent !== ${JSON.stringify(left)}`);

// Ten thousand scroll.
await search('');
await evaluate('document.activeElement.blur()');
await picture('desktop');
await evaluate("at('rows').scrollTop = at('rows').scrollHeight");
await until("[...document.querySelectorAll('#rows li:not([hidden])')].some((it) => it.getAttribute('aria-posinset') === '10001')");
assert.ok((await evaluate("document.querySelectorAll('#rows li').length")) < 60);
await evaluate("at('rows').scrollTop = 0");

// The keyboard goes from row to row.
await until("[...document.querySelectorAll('#rows li:not([hidden])')].some((it) => it.getAttribute('aria-posinset') === '1')");
const posinset = "Number(document.activeElement.parentElement.getAttribute('aria-posinset'))";
await evaluate("[...document.querySelectorAll('#rows li:not([hidden])')].find((it) => it.getAttribute('aria-posinset') === '1').firstChild.focus()");
for (let step = 0; step < 40; step += 1) await page('Input.dispatchKeyEvent', { type: 'rawKeyDown', key: 'ArrowDown', code: 'ArrowDown', windowsVirtualKeyCode: 40 });
assert.equal(await evaluate(posinset), 41);
await evaluate('document.activeElement.blur()');
await evaluate("at('rows').scrollTop = 0");

// What a screen reader is told.
const { nodes } = await page('Accessibility.getFullAXTree');
const named = (role) => nodes.filter((node) => node.role?.value === role && !node.ignored).map((node) => node.name?.value);
assert.equal(named('main').length, 1);
assert.equal(named('banner').length, 1);
assert.deepEqual(named('region'), ['Stock', 'Active holds of sku-00042', 'Live events']);
assert.deepEqual(named('searchbox'), ['Search']);
await until("at('told').textContent.includes('new events')");

await look(1280, 800, false, 'dark');
await picture('dark');
await look(390, 844, true, 'light');
assert.ok(await evaluate('document.documentElement.scrollWidth <= innerWidth'), 'nothing is wider than a phone');
await picture('phone');
await look(1280, 800, false, 'light');

// It asks for a token, and keeps it for the tab.
assert.deepEqual(complaints, []);
await page('Page.navigate', { url: guarded });
await until("at('ask') && !at('ask').hidden && at('health').textContent === 'ready'");
const give = (text) => evaluate(`(() => { at('token').value = ${JSON.stringify(text)}; at('ask').requestSubmit(); })()`);
await give('wrong-wrong-wrong-wrong');
await until("at('refused').textContent !== '' && !at('ask').hidden");
await give(token);
await until("at('count').textContent === '1 of 1' && at('link').textContent === 'live' && at('ask').hidden");
await page('Page.reload');
await until("at('count')?.textContent === '1 of 1' && at('ask').hidden");
assert.ok(!(await evaluate('location.href')).includes(token));
// The browser logs each 401.
assert.ok(complaints.every((text) => text.includes('401')), complaints.join('\n'));

// Nothing but the page's own script runs.
await evaluate("(() => { const made = document.createElement('script'); made.textContent = 'window.hacked = 1'; document.body.append(made); })()");
await evaluate("(() => { const made = document.createElement('div'); made.innerHTML = '<img src=x onerror=\"window.hacked = 1\">'; document.body.append(made); })()");
await new Promise((resolve) => setTimeout(resolve, 300));
assert.equal(await evaluate('window.hacked'), undefined);
hosts.delete('');
assert.deepEqual([...hosts].sort(), [new URL(url).host, new URL(guarded).host].sort());
await send('Browser.close');
process.exit(0);
