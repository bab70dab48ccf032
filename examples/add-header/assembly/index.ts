// Adds one header, `hi: trendyol!`, to every response that passes the proxy.
// Built on the AssemblyScript SDK for proxy-wasm; a plugin configuration, when there is one, replaces the value.

// @ts-ignore: the compiler takes the SDK's exports (the callbacks the proxy calls) from here
export * from "@solo-io/proxy-runtime/proxy";
import {
  Context,
  FilterHeadersStatusValues,
  RootContext,
  registerRootContext,
  stream_context,
} from "@solo-io/proxy-runtime";

const HEADER_NAME = "hi";
const DEFAULT_VALUE = "trendyol!";

/** One per plugin: keeps the configuration and makes a context for every HTTP stream. */
class GreetingRoot extends RootContext {
  value: string = DEFAULT_VALUE;

  onConfigure(configuration_size: u32): bool {
    // The SDK's reading of an empty configuration traps on hosts of 2022 and later, so ask it only when there is one.
    if (configuration_size == 0) return true;
    if (!super.onConfigure(configuration_size)) return false;
    this.value = this.getConfiguration();
    return true;
  }

  createContext(context_id: u32): Context {
    return new GreetingStream(context_id, this);
  }
}

/** One per HTTP request and its response. */
class GreetingStream extends Context {
  greeting: GreetingRoot;

  constructor(context_id: u32, root: GreetingRoot) {
    super(context_id, root);
    this.greeting = root;
  }

  onResponseHeaders(header_count: u32, end_of_stream: bool): FilterHeadersStatusValues {
    stream_context.headers.response.add(HEADER_NAME, this.greeting.value);
    return FilterHeadersStatusValues.Continue;
  }
}

registerRootContext((context_id: u32): RootContext => new GreetingRoot(context_id), "add_header");
