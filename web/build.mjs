// Builds dist/ from src/: the same bytes from the same sources and lock file.
import { build } from "esbuild";
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";

const { dependencies } = JSON.parse(await readFile("package.json", "utf8"));

await rm("dist", { recursive: true, force: true });
await mkdir("dist");
await build({
  entryPoints: { app: "src/main.ts" },
  outdir: "dist",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  banner: { js: `/*! Includes uPlot ${dependencies.uplot}, MIT licence, in /licences.txt */` },
});
await build({ entryPoints: { app: "src/style.css" }, outdir: "dist", bundle: true, minify: true, charset: "utf8" });
await copyFile("src/index.html", "dist/index.html");
await copyFile("src/favicon.svg", "dist/favicon.svg");
await writeFile("dist/licences.txt", `uPlot ${dependencies.uplot}\n\n${await readFile("node_modules/uplot/LICENSE", "utf8")}`);
