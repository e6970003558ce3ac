#!/bin/sh
# An agent for lanes: it does what $LANE_AGENT says for the lane's item and its N-th run, then says that it is done.
# $LANE_AGENT/3.2 is the second run of lane 3 (and 3a, 3-2 …), $LANE_AGENT/3 every other.
lane=${CODEX_SELF_ITER_LANE:?} item=${CODEX_SELF_ITER_LANE%%[!0-9]*}
cp "$1" "$LANE_AGENT/seen.$lane.$$"
echo "$$" >> "$LANE_AGENT/runs.$lane"
count=$(wc -l < "$LANE_AGENT/runs.$lane")
answer='{"summary": "did item '$item'", "next_goal": "", "stop": false, "reason": "", "evidence": "", "completed": true}'
for script in "$LANE_AGENT/$lane.$count" "$LANE_AGENT/$lane" "$LANE_AGENT/$item.$count" "$LANE_AGENT/$item"; do
    if [ -f "$script" ]; then
        . "$script"
        break
    fi
done
git rev-parse HEAD >> "$LANE_AGENT/heads.$lane"
printf '```json\n%s\n```\n' "$answer"
