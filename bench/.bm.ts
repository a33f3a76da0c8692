import "./quiet.ts";
import { matching } from "./matching.ts";
import { openInstance, settle } from "./instance.ts";
const instance = await openInstance({ } as never, () => {});
try { console.log(await matching(instance.dbUrl, (u) => settle(instance.adminUrl, u), { rounds: 1, others: +(process.argv[2] ?? 100000), calls: (b) => b === 10 ? 400 : 1200 }, console.error)); } finally { await instance.stop(); }
process.exit(0);
