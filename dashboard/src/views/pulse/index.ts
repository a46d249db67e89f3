export { default } from "./Pulse.svelte";
