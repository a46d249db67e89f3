import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

/** The server that `npm run dev` shows; the built page is served by that server itself. */
const server = process.env.STEADCAST_URL ?? "http://127.0.0.1:8765";

export default defineConfig({
  // Relative, so that the page works under any base path.
  base: "./",
  plugins: [svelte()],
  build: {
    outDir: "../src/steadcast/http/static",
    emptyOutDir: true,
    // Nothing inline: the page is served with a content security policy of 'self'.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: {
      "/v1": server,
      "/readyz": server,
      "/socket.io": { target: server, ws: true },
    },
  },
});
