import { SocketClient } from "@steadcast/client";
import { mount } from "svelte";
import App from "./App.svelte";
import "./app.css";
import { addressOf } from "./lib/address.js";
import { createPage } from "./lib/page.svelte.js";

declare global {
  interface Window {
    /** The page's connection, for the console: `socketClient.getConnectionMetrics()`. */
    socketClient: SocketClient;
  }
}

const address = addressOf(document.baseURI);
const socketClient = new SocketClient(address.origin, { path: `${address.base}socket.io` });
window.socketClient = socketClient;

const target = document.getElementById("app");
if (!target) throw new Error("the page has no place for the application");
mount(App, { target, props: { page: createPage(address, socketClient) } });
