#!/usr/bin/env bash
# Runs clasp and the reference (scripts/clasp_torch.py) in turn on the same work and prints a row a job: medians over the
# rounds, their ratio (PyTorch's time over clasp's), and the peak memory of each. Arguments go to both programs.
#
#   benches/compare.sh --size base --batch-size 4 --seconds 4.5 --tokens 20 --threads 2
#
# ROUNDS (3), JOBS ("train predict"), CLASP (target/release/clasp) and PYTHON (uv run) change what is run and how often;
# OURS are more arguments for clasp alone, as in OURS=--feature-cache JOBS=train.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-3}
clasp=${CLASP:-target/release/clasp}
read -ra python <<<"${PYTHON:-uv run}"
read -ra more <<<"${OURS:-}"
results=$(mktemp)
trap 'rm -f -- "$results"' EXIT

for job in ${JOBS:-train predict}; do
  for ((round = 1; round <= rounds; round++)); do
    # Whoever is first alternates, so that a machine that grows warm or busy favours neither.
    order=(ours theirs)
    if ((round % 2 == 0)); then order=(theirs ours); fi
    for who in "${order[@]}"; do
      case $who in
        ours) "$clasp" bench --only "$job" "${more[@]}" "$@" ;;
        theirs) "${python[@]}" scripts/clasp_torch.py bench --only "$job" "$@" ;;
      esac | tee -a "$results" >&2
    done
  done
done

awk '
  function field(name,   found) {
    if (!match($0, "\"" name "\": ?[^,}]*")) return ""
    found = substr($0, RSTART, RLENGTH)
    sub(/^"[^"]*": ?/, "", found)
    gsub(/"/, "", found)
    return found
  }
  function median(job, who,   count, index_, other, values, moved) {
    count = split(times[job, who], values, " ")
    for (index_ = 2; index_ <= count; index_++)
      for (other = index_; other > 1 && values[other - 1] + 0 > values[other] + 0; other--) {
        moved = values[other]; values[other] = values[other - 1]; values[other - 1] = moved
      }
    return count % 2 ? values[(count + 1) / 2] : (values[count / 2] + values[count / 2 + 1]) / 2
  }
  {
    job = field("job")
    who = field("implementation") == "clasp" ? "clasp" : "torch"
    if (!(job in seen)) { seen[job] = 1; jobs[++number] = job }
    times[job, who] = times[job, who] " " field("median_s")
    if (field("peak_gib") + 0 > memory[job, who] + 0) memory[job, who] = field("peak_gib")
  }
  END {
    print "| job | clasp s | torch s | ratio | clasp GiB | torch GiB |"
    print "|---|---|---|---|---|---|"
    for (index_ = 1; index_ <= number; index_++) {
      job = jobs[index_]
      ours = median(job, "clasp"); theirs = median(job, "torch")
      printf "| %s | %.3f | %.3f | %.2f | %.2f | %.2f |\n", job, ours, theirs, theirs / ours, memory[job, "clasp"], memory[job, "torch"]
    }
  }
' "$results"
