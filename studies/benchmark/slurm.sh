#!/usr/bin/env bash
# The grid in one job of SLURM: a scheduler of Dask, a worker a task, and the command, which ends the job.
#
#     cd studies/benchmark && mkdir -p scratch && sbatch --ntasks=32 slurm.sh ['eisen_FUN-*' ...]
#
# A job that is stopped is submitted again, and goes on. For workers in jobs of their own, see README.md.
#SBATCH --job-name=rare-nodes
#SBATCH --ntasks=16
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=3G
#SBATCH --time=12:00:00
#SBATCH --output=scratch/slurm-%j.log
set -euo pipefail

study=${SLURM_SUBMIT_DIR:?start it with sbatch, in the folder of the study}
cd "$study"
export PATH="$study/../../.venv/bin:$PATH" OMP_NUM_THREADS=1

# Who reaches a scheduler can run code as you: only holders of this key reach this one.
private="$study/scratch/slurm-$SLURM_JOB_ID"
mkdir -p "$private"
chmod 700 "$private"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=grid \
    -keyout "$private/key.pem" -out "$private/cert.pem" 2> "$private/openssl.log"
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$private/cert.pem"
for role in SCHEDULER WORKER CLIENT; do
    export "DASK_DISTRIBUTED__COMM__TLS__${role}__CERT=$private/cert.pem"
    export "DASK_DISTRIBUTED__COMM__TLS__${role}__KEY=$private/key.pem"
done

trap 'kill $(jobs -p) 2> /dev/null; rm -rf "$private"' EXIT
file="$private/scheduler.json"
dask scheduler --protocol tls --port 0 --scheduler-file "$file" --no-dashboard &
srun --ntasks="$SLURM_NTASKS" --kill-on-bad-exit=0 dask worker --protocol tls --scheduler-file "$file" \
    --nthreads 1 --memory-limit 0 --no-dashboard --local-directory "${TMPDIR:-/tmp}" &
python -m rarenodes grid --scheduler "$file" "$@"
