// Puts visitors into two groups, `a` and `b`, for trying a change on some of them: a visitor keeps a group.
// The upstream reads the group from the header `x-group`; the visitor gets it as a cookie, and is asked for it later.
//
// Built on the AssemblyScript SDK that is maintained at Gcore. Its log lines go to WASI's standard output, because
// its own host has no `proxy_log`; a proxy writes them into its log all the same.
//
// The plugin configuration is the share of group `b` in percent; without one it is 50.

// The compiler takes the callbacks that the proxy calls from here.
export * from "@gcoredev/proxy-wasm-sdk-as/assembly/proxy";
import {
  Context,
  FilterHeadersStatusValues,
  LogLevelValues,
  RootContext,
  log,
  registerRootContext,
  stream_context,
} from "@gcoredev/proxy-wasm-sdk-as/assembly";

const COOKIE = "group";
const HEADER = "x-group";

/** The value of `name` in a `cookie` header such as `a=1; group=b`, or "". */
function cookie(header: string, name: string): string {
  const pairs = header.split(";");
  for (let i = 0; i < pairs.length; i++) {
    const pair = pairs[i].trim();
    if (pair.startsWith(name + "=")) return pair.substring(name.length + 1);
  }
  return "";
}

/** FNV-1a: a small hash that spreads short texts well. Not for secrets. */
function hash(text: string): u32 {
  const bytes = Uint8Array.wrap(String.UTF8.encode(text));
  let value: u32 = 0x811c9dc5;
  for (let i = 0; i < bytes.length; i++) {
    value = (value ^ bytes[i]) * 0x01000193;
  }
  return value;
}

/** One per plugin: knows the share. */
class Split extends RootContext {
  share: u32 = 50;

  onConfigure(size: u32): bool {
    if (!super.onConfigure(size)) return false;
    const text = this.getConfiguration();
    if (text.length == 0) return true;
    const percent = parseInt(text);
    // Also false for NaN. A plugin that refuses its configuration is not started, and the proxy says so.
    if (!(percent >= 0 && percent <= 100)) {
      log(LogLevelValues.error, "the configuration should be a percentage, not " + text);
      return false;
    }
    this.share = <u32>percent;
    return true;
  }

  createContext(context_id: u32): Context {
    return new Visit(context_id, this);
  }
}

/** One per HTTP request and its response: what is found out about the request is still known at the response. */
class Visit extends Context {
  split: Split;
  group: string = "";
  is_new: bool = false;

  constructor(context_id: u32, split: Split) {
    super(context_id, split);
    this.split = split;
  }

  onRequestHeaders(count: u32, end_of_stream: bool): FilterHeadersStatusValues {
    const headers = stream_context.headers.request;
    const known = cookie(headers.get("cookie"), COOKIE);
    if (known == "a" || known == "b") {
      this.group = known;
    } else {
      // By name where there is one, so that several devices of a visitor agree.
      const visitor = headers.get("x-visitor");
      this.group = hash(visitor) % 100 < this.split.share ? "b" : "a";
      this.is_new = true;
      log(LogLevelValues.info, "visitor '" + visitor + "' is in group " + this.group);
    }
    // A client must not choose by itself: whatever it sent under this name is gone.
    headers.remove(HEADER);
    headers.add(HEADER, this.group);
    return FilterHeadersStatusValues.Continue;
  }

  onResponseHeaders(count: u32, end_of_stream: bool): FilterHeadersStatusValues {
    if (this.is_new) {
      stream_context.headers.response.add("set-cookie", COOKIE + "=" + this.group + "; Path=/; HttpOnly");
    }
    return FilterHeadersStatusValues.Continue;
  }
}

registerRootContext((context_id: u32): RootContext => new Split(context_id), "split_visitors");
