#!/bin/bash
# Vast.ai: the on-start script of an instance; worker.ts and runtime/ lie in /workspace/worker. The token is an environment
# variable of your account, set under Account, Environment Variables: WORK_TOKEN
#
#   vastai create instance OFFER --image IMAGE --disk 32 --ssh --onstart vast.sh
#
# An instance costs while it runs. The worker stops it after ten minutes without work; a stopped one pays for its disk.
# An outbid instance is paused without a notice: the leases end by themselves.
export SUPABASE_URL=https://YOUR-PROJECT.supabase.co
export SUPABASE_PUBLISHABLE_KEY=sb_publishable_YOUR_KEY
export WORK_TYPE=YOUR_WORK_TYPE
export WORK_LEAVE_IDLE_SECONDS=${WORK_LEAVE_IDLE_SECONDS:-600}
export WORK_GRACE_SECONDS=2
export WORK_ON_LEAVE="[\"vastai\", \"stop\", \"instance\", \"$CONTAINER_ID\"]"
# On an instance it has a key for that instance alone.
command -v vastai >/dev/null || pip install --quiet vastai

cd "${WORK_FOLDER:-/workspace/worker}" || exit 78
node worker.ts &
worker=$!
trap 'kill -TERM "$worker" 2>/dev/null' TERM INT
while wait "$worker"; code=$?; [ "$code" -gt 128 ] && kill -0 "$worker" 2>/dev/null; do :; done

# With a wrong setting (78) the instance would stand idle, and cost.
[ "$code" -ne 78 ] || vastai stop instance "$CONTAINER_ID"
exit "$code"
