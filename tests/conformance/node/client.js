// One call of each kind through grpc-js, with the contract read from our .proto files.
//
//   NODE_PATH=.tools/node/node_modules node tests/conformance/node/client.js HOST:PORT
//
// Prints one line of JSON: what each call gave, by name.
'use strict';

const path = require('path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const PROTO = path.resolve(__dirname, '..', '..', '..', 'proto');
const DEADLINE_MS = 30000;
const MANY = 50;

function connect(address) {
  const contract = loader.loadSync('inferd/oip/v2/inference.proto', {
    includeDirs: [PROTO],
    keepCase: true,
    longs: Number,
  });
  const { inference } = grpc.loadPackageDefinition(contract);
  return new inference.GRPCInferenceService(address, grpc.credentials.createInsecure());
}

// INPUT0 is start, start + 1, ...; INPUT1 is ones.
function request(model, start, id) {
  const rows = [Int32Array.from({ length: 16 }, (_, index) => start + index), new Int32Array(16).fill(1)];
  return {
    model_name: model,
    id,
    inputs: rows.map((_, index) => ({ name: `INPUT${index}`, datatype: 'INT32', shape: [1, 16] })),
    raw_input_contents: rows.map((row) => Buffer.from(row.buffer)),
  };
}

function numbers(raw) {
  return Array.from({ length: raw.length / 4 }, (_, index) => raw.readInt32LE(4 * index));
}

function deadline() {
  return { deadline: Date.now() + DEADLINE_MS };
}

// Resolves to the answer and the metadata of the call, or to the status that it ended with.
function unary(client, method, message) {
  return new Promise((resolve) => {
    const call = client[method](message, deadline(), (error, answer) => {
      call.on('status', (status) => resolve({
        answer,
        code: grpc.status[status.code],
        details: status.details,
        trailing: status.metadata.getMap(),
      }));
    });
  });
}

async function infer(client) {
  const { answer, code } = await unary(client, 'ModelInfer', request('simple', 1, 'one'));
  return { code, id: answer.id, sums: numbers(answer.raw_output_contents[0]) };
}

async function refused(client) {
  const { code, details, trailing } = await unary(client, 'ModelInfer', request('absent', 1, 'one'));
  return { code, details, kind: trailing['inferd-error'] };
}

async function metadata(client) {
  const { answer } = await unary(client, 'ModelMetadata', { name: 'simple' });
  return { name: answer.name, input: answer.inputs[0] };
}

// Resolves once the server has ended the stream, after every request was sent and answered.
function stream(client) {
  return new Promise((resolve, reject) => {
    const call = client.ModelStreamInfer(deadline());
    const sums = {};
    const errors = {};
    call.on('data', ({ error_message: error, infer_response: answer }) => {
      if (error) errors[answer.id] = error;
      else sums[answer.id] = numbers(answer.raw_output_contents[0])[0];
    });
    call.on('error', reject);
    call.on('status', (status) => resolve({ sums, errors, code: grpc.status[status.code] }));
    for (let index = 0; index < MANY; index += 1) {
      call.write(request(index === 7 ? 'absent' : 'simple', index, String(index)));
    }
    call.end();
  });
}

async function main() {
  const client = connect(process.argv[2]);
  const results = {};
  for (const call of [infer, refused, metadata, stream]) results[call.name] = await call(client);
  client.close();
  console.log(JSON.stringify(results));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
