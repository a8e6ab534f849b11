// The rooms of the benchmarks as Durable Objects, for workerd: the same work, asked for over HTTP.
import { DurableObject } from "cloudflare:workers";

let rung = 0;

export class Box extends DurableObject {
  nothing() {}

  async write(value) {
    await this.ctx.storage.put("key", value);
  }

  async read() {
    return await this.ctx.storage.get("key");
  }

  async writeDurably(count) {
    for (let number = 0; number < count; number++) {
      await this.ctx.storage.put("key", `a small value that is not the same twice: ${number}`);
      await this.ctx.storage.sync();
    }
  }

  async callOften(name, count) {
    const other = this.env.BOX.get(this.env.BOX.idFromName(name));
    for (let number = 0; number < count; number++) await other.nothing();
  }

  async arm(due) {
    await this.ctx.storage.setAlarm(due);
  }

  alarm() {
    rung += 1;
  }
}

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    const [first, count, due] = ["first", "count", "due"].map((name) => Number(url.searchParams.get(name)));
    const box = (name) => env.BOX.get(env.BOX.idFromName(String(name)));
    const numbers = Array.from({ length: count }, (_, place) => first + place);
    switch (url.pathname) {
      case "/call":
        await box("a").callOften("b", count);
        break;
      case "/sync":
        await box("a").writeDurably(count);
        break;
      case "/write":
        await Promise.all(numbers.map((number) => box(number).write(`value ${number}`)));
        break;
      case "/read":
        for (const number of numbers) await box(number).read();
        break;
      case "/arm":
        await Promise.all(numbers.map((number) => box(number).arm(due)));
        break;
    }
    return new Response(String(rung));
  },
};
