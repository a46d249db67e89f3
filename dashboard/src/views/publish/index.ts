export { default } from "./Publish.svelte";
