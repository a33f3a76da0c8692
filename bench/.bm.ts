import "./quiet.ts";
import { matching } from "./.m.ts";
import { openInstance, settle } from "./instance.ts";
const instance = await openInstance({ } as never, () => {});
try { console.log(await matching(instance.dbUrl, (u) => settle(instance.adminUrl, u), { rounds: 2, others: 1000, calls: (b) => b === 10 ? 600 : 1400 }, () => {})); } finally { await instance.stop(); }
process.exit(0);
