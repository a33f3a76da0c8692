// The SHA-256 of each file in a folder. Every process that runs this shares the list, and each file is done once:
//
//   for n in $(seq 10); do node loop.mjs ~/pictures & done; wait
//   sbatch --array=1-10 --wrap "node loop.mjs /data/pictures"
//   WORK_CLAIMS_DISABLED=1 node loop.mjs ~/pictures     # the plain loop, without a database
//
// SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY name the project. Started again, it does what is new.
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { claims } from "work-claims/worker";

const folder = process.argv[2] ?? ".";
const files = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isFile());

for await (const claim of claims("checksum", { over: files, key: (file) => file.name })) {
  await claim.run(async () => {
    const content = await readFile(join(folder, claim.item.name), { signal: claim.signal });
    return { name: claim.item.name, sha256: createHash("sha256").update(content).digest("hex") };
  });
}
