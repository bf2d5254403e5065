// Bundles each src/*.test.ts for node and runs them.
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const out = await mkdtemp(join(tmpdir(), "keytrail-console-"));
const entryPoints = (await readdir("src")).filter((f) => f.endsWith(".test.ts")).map((f) => join("src", f));
await build({ entryPoints, outdir: out, bundle: true, format: "esm", platform: "node", outExtension: { ".js": ".mjs" } });
const files = (await readdir(out)).map((f) => join(out, f));
const { status } = spawnSync(process.execPath, ["--test", ...files], { stdio: "inherit" });
await rm(out, { recursive: true });
process.exit(status ?? 1);
