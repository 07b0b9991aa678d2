// One call of each kind through grpc-js, with the contract read from our .proto files.
//
//   NODE_PATH=.tools/node/node_modules node client.js ADDRESS SUBJECT [CA_FILE]
//
// HEALTH_DESCRIPTORS names the descriptors of grpc.health.v1. Prints one line of JSON: what the
// subject gave.
'use strict';

const fs = require('fs');
const path = require('path');
const readline = require('readline');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const PROTO = path.resolve(__dirname, '..', '..', '..', 'proto');
const PATIENCE_MS = 30000;
const MANY = 50;
const UNKNOWN = 7;
const COLUMNS = 16;
const LARGE = 5 * 1024 * 1024;
const KEEPALIVE_MS = 10000;
const SILENCE_MS = 45000;

const OPTIONS = { keepCase: true, longs: Number, enums: String };
const { inference } = grpc.loadPackageDefinition(
  loader.loadSync('inferd/oip/v2/inference.proto', { ...OPTIONS, includeDirs: [PROTO] }),
);

function pause(time) {
  return new Promise((resolve) => { setTimeout(resolve, time); });
}

// INPUT0 is start, start + 1, ...; INPUT1 is ones.
function request(model, start, id) {
  const rows = [Int32Array.from({ length: COLUMNS }, (_, index) => start + index), new Int32Array(COLUMNS).fill(1)];
  return {
    model_name: model,
    id,
    inputs: rows.map((_, index) => ({ name: `INPUT${index}`, datatype: 'INT32', shape: [1, COLUMNS] })),
    raw_input_contents: rows.map((row) => Buffer.from(row.buffer)),
  };
}

function numbers(answer) {
  const raw = answer.raw_output_contents[0];
  return Array.from({ length: raw.length / 4 }, (_, index) => raw.readInt32LE(4 * index));
}

function within(time, options) {
  return { ...options, deadline: Date.now() + time };
}

// Resolves to the answer, or to the status that the call ended with; `use` gets the call.
function unary(client, method, message, { time = PATIENCE_MS, metadata, use, ...options } = {}) {
  return new Promise((resolve) => {
    const call = client[method](message, metadata || new grpc.Metadata(options), within(time), (error, answer) => {
      call.on('status', (status) => resolve({
        answer,
        code: grpc.status[status.code],
        details: status.details,
        trailing: status.metadata.getMap(),
      }));
    });
    if (use) use(call);
  });
}

async function then(client, options) {
  return (await unary(client, 'ModelInfer', request('simple', 1, 'one'), options)).code;
}

async function summed(client) {
  const { answer, code } = await unary(client, 'ModelInfer', request('simple', 1, 'one'));
  return { code, id: answer.id, sums: numbers(answer) };
}

async function refused(client) {
  const { code, details, trailing } = await unary(client, 'ModelInfer', request('absent', 1, 'one'));
  return { code, details, kind: trailing['inferd-error'] };
}

// Messages of a stream as they come, and its end.
function open(client, options) {
  const call = client.ModelStreamInfer(options || within(PATIENCE_MS));
  const waiting = [];
  const messages = [];
  call.on('data', (message) => {
    messages.push(message);
    if (waiting.length) waiting.shift()();
  });
  call.on('error', () => {});
  const ended = new Promise((resolve) => {
    call.on('status', (status) => {
      waiting.forEach((wake) => wake());
      resolve(grpc.status[status.code]);
    });
  });
  const next = () => new Promise((resolve) => { waiting.push(resolve); });
  return { call, messages, ended, next };
}

async function streamed(client) {
  const { call, messages, ended } = open(client);
  for (let index = 0; index < MANY; index += 1) {
    call.write(request(index === UNKNOWN ? 'absent' : 'simple', index, String(index)));
  }
  call.end();
  const code = await ended;
  const good = messages.filter((message) => !message.error_message).map((message) => message.infer_response);
  const bad = messages.filter((message) => message.error_message).map((message) => message.infer_response);
  return {
    code,
    answered: good.map((answer) => answer.id),
    sums: good.map((answer) => numbers(answer)[0]),
    failed: bad.map((answer) => answer.id),
  };
}

async function deadline(client) {
  const { code } = await unary(client, 'ModelInfer', request('slow', 1, 'one'), { time: 300 });
  return { code, then: await then(client) };
}

async function cancelled(client) {
  const use = (call) => setTimeout(() => call.cancel(), 300);
  const { code } = await unary(client, 'ModelInfer', request('slow', 1, 'one'), { use });
  const { call, ended, next } = open(client);
  const first = next();
  call.write(request('simple', 1, 'one'));
  await first;
  call.write(request('slow', 1, 'two'));
  call.cancel();
  return { code, stream: await ended, then: await then(client) };
}

async function large(client) {
  const payload = Buffer.alloc(LARGE);
  for (let index = 0; index < LARGE; index += 1) payload[index] = index % 251;
  const message = {
    model_name: 'large',
    inputs: [{ name: 'INPUT0', datatype: 'UINT8', shape: [1, LARGE] }],
    raw_input_contents: [payload],
  };
  const { answer, code } = await unary(client, 'ModelInfer', message);
  return { code, equal: answer.raw_output_contents[0].equals(payload) };
}

// The states of a model while this client unloads and loads it.
function watched(client, connect) {
  const descriptors = fs.readFileSync(process.env.HEALTH_DESCRIPTORS);
  const { grpc: { health } } = grpc.loadPackageDefinition(
    loader.loadFileDescriptorSetFromBuffer(descriptors, OPTIONS),
  );
  return new Promise((resolve) => {
    const call = connect(health.v1.Health).Watch({ service: 'watched' }, within(PATIENCE_MS));
    const states = [];
    const changes = ['RepositoryModelUnload', 'RepositoryModelLoad'];
    call.on('error', () => {});
    call.on('data', async (state) => {
      const change = changes[states.length];
      states.push(state.status);
      if (change) await unary(client, change, { model_name: 'watched' });
      else {
        call.cancel();
        resolve({ states });
      }
    });
  });
}

// A stream that is silent for several pings is answered on the same connection.
async function pinged(client) {
  const { call, messages, ended, next } = open(client, {});
  for (let index = 0; index < 2; index += 1) {
    if (index === 1) await pause(SILENCE_MS);
    const answer = next();
    call.write(request('simple', index, 'one'));
    await answer;
  }
  call.end();
  return { code: await ended, answers: messages.length };
}

// Stops at each line that it writes until the test has ended or started the server.
async function restarted(client) {
  const lines = readline.createInterface({ input: process.stdin });
  const line = (text) => new Promise((resolve) => {
    lines.once('line', resolve);
    console.log(text);
  });
  const before = await then(client);
  await line('before');
  const away = await then(client);
  await line('away');
  lines.close();
  return { before, away, after: await then(client, { waitForReady: true }) };
}

const SUBJECTS = {
  unary: summed,
  tls: summed,
  compression: summed,
  refused,
  stream: streamed,
  deadline,
  cancel: cancelled,
  large,
  health: watched,
  keepalive: pinged,
  restart: restarted,
};

async function main(address, subject, caFile) {
  const security = caFile
    ? grpc.credentials.createSsl(fs.readFileSync(caFile))
    : grpc.credentials.createInsecure();
  const options = {
    'grpc.max_receive_message_length': -1,
    'grpc.keepalive_time_ms': KEEPALIVE_MS,
    // 2 is gzip.
    ...(subject === 'compression' && { 'grpc.default_compression_algorithm': 2 }),
  };
  const made = [];
  const connect = (Service) => {
    made.push(new Service(address, security, options));
    return made[made.length - 1];
  };
  const client = connect(inference.GRPCInferenceService);
  console.log(JSON.stringify(await SUBJECTS[subject](client, connect)));
  made.forEach((each) => each.close());
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
