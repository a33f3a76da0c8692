#!/bin/bash
# RunPod: the start command of a pod is `bash /workspace/runpod.sh`; worker.ts and runtime/ lie beside this file.
# The token is a secret of RunPod's, and an environment variable of the pod:
#
#   WORK_TOKEN={{ RUNPOD_SECRET_work_token }}
#
# A pod costs while it runs. The worker stops it after ten minutes without work; a stopped pod pays for its volume alone.
export SUPABASE_URL=https://YOUR-PROJECT.supabase.co
export SUPABASE_PUBLISHABLE_KEY=sb_publishable_YOUR_KEY
export WORK_TYPE=YOUR_WORK_TYPE
export WORK_LEAVE_IDLE_SECONDS=${WORK_LEAVE_IDLE_SECONDS:-600}
# A spot pod has five seconds between TERM and KILL.
export WORK_GRACE_SECONDS=2
export WORK_ON_LEAVE="[\"runpodctl\", \"stop\", \"pod\", \"$RUNPOD_POD_ID\"]"

# A stopped pod may come back without its GPU.
if [ "${RUNPOD_GPU_COUNT:-1}" -eq 0 ]; then
  echo "this pod has no GPU: it stops" >&2
  exec runpodctl stop pod "$RUNPOD_POD_ID"
fi

cd "$(dirname "$0")" || exit 78
node worker.ts &
worker=$!
trap 'kill -TERM "$worker" 2>/dev/null' TERM INT
while wait "$worker"; code=$?; [ "$code" -gt 128 ] && kill -0 "$worker" 2>/dev/null; do :; done

# A start command that ends is started again. With a wrong setting (78) that would never end.
[ "$code" -ne 78 ] || runpodctl stop pod "$RUNPOD_POD_ID"
exit "$code"
