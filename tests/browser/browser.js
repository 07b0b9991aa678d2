// A headless browser that does what the lines of its standard input say, each a JSON object, and
// answers each with a line. Usage: node browser.js PATH_OF_CHROMIUM, with NODE_PATH.
"use strict";

const readline = require("node:readline");
const { setTimeout: sleep } = require("node:timers/promises");
const { chromium } = require("playwright-core");

const PATIENCE_MS = 30000, LOOK_MS = 100;

// Playwright's own way to wait evaluates text within the page, which the page's policy forbids.
async function until(holds, what) {
  for (const end = Date.now() + PATIENCE_MS; !(await holds()); await sleep(LOOK_MS)) {
    if (Date.now() > end) throw new Error(`not within ${PATIENCE_MS} ms: ${what}`);
  }
  return true;
}

async function main(executablePath) {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const page = await browser.newPage();
  // What the page did that a reader of it should know: requests to others, errors, what the policy blocked.
  const said = [], asked = new Set();
  page.on("console", (line) => said.push(`${line.type()}: ${line.text()}`));
  page.on("pageerror", (error) => said.push(`error: ${error.message}`));
  page.on("request", (request) => asked.add(new URL(request.url()).origin));
  const does = {
    open: ({ url }) => page.goto(url).then((answer) => answer.status()),
    size: ({ width, height, scheme }) => page.setViewportSize({ width, height }).then(() => page.emulateMedia({ colorScheme: scheme ?? "light" })),
    evaluate: ({ js }) => page.evaluate(js),
    wait: ({ js }) => until(() => page.evaluate(js), js),
    choose: ({ selector, value }) => page.selectOption(selector, value),
    shot: ({ path }) => page.screenshot({ path, fullPage: true }).then(() => path),
    seen: async () => ({ said: said.splice(0), asked: [...asked] }),
  };
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const wanted = JSON.parse(line);
    const answer = await does[wanted.do](wanted).then((value) => ({ value: value ?? null }), (error) => ({ error: error.message }));
    console.log(JSON.stringify(answer));
  }
  await browser.close();
}

main(process.argv[2]);
