# A Slurm of one node on this machine, for tests; sourced after shell.sh. Everything of it lies in $work/slurm: keys, sockets, state and
# logs; no setting of this machine is touched. Needs root and Debian's slurm-wlm and munge.
slurm_installed() {
    local program
    for program in munged slurmctld slurmd sbatch srun scontrol squeue sinfo; do command -v $program >/dev/null || return 1; done
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }

# slurm_up: starts munged, slurmctld and slurmd; fails, with the reason in $work/err, where they do not come up in half a minute.
slurm_up() {
    local home=$work/slurm name
    name=$(hostname -s)
    mkdir -p "$home/state" "$home/spool" && chmod 700 "$home" || return 1
    (umask 077 && head -c 128 /dev/urandom >"$home/munge.key")
    munged --force --key-file="$home/munge.key" --socket="$home/munge.socket" --pid-file="$home/munged.pid" --log-file="$home/munged.log" \
        --seed-file="$home/munge.seed" 2>"$work/err" || return 1
    cat >"$home/slurm.conf" <<END
ClusterName=tuwen
SlurmctldHost=$name(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket,cred_expire=5
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
MpiDefault=pmix
ReturnToService=2
KillWait=5
GresTypes=gpu
NodeName=$name NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=1000 Gres=gpu:$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
    # Counted, without devices: the ranks of these tests compute on cores.
    echo "NodeName=$name Name=gpu Count=$(nproc)" >"$home/gres.conf"
    export SLURM_CONF=$home/slurm.conf
    slurmctld -D -f "$SLURM_CONF" >"$home/slurmctld.out" 2>&1 &
    slurm_daemons=$!
    slurmd -D -f "$SLURM_CONF" >"$home/slurmd.out" 2>&1 &
    slurm_daemons+=" $!"
    for _ in $(seq 300); do
        [ "$(sinfo -h -o %t 2>/dev/null)" = idle ] && return 0
        sleep 0.1
    done
    tail -n 4 "$home"/*.log "$home"/*.out >"$work/err"
    return 1
}
slurm_down() {
    # shellcheck disable=SC2086 # numbers
    [ -z "${slurm_daemons:-}" ] || { kill $slurm_daemons && wait $slurm_daemons; } 2>/dev/null
    slurm_daemons=""
    [ ! -s "$work/slurm/munged.pid" ] || kill "$(cat "$work/slurm/munged.pid")" 2>/dev/null
}
