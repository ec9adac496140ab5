# A Slurm of two nodes in this machine, for tests; sourced after shell.sh. Everything of it lies in $work/slurm: keys, sockets, state and
# logs; no setting of this machine is touched. Needs root and Debian's slurm-wlm and munge.
slurm_installed() {
    local program
    for program in munged slurmctld slurmd sbatch srun scontrol squeue sinfo; do command -v $program >/dev/null || return 1; done
}
# free_ports COUNT: so many different ones, which nothing uses now.
free_ports() { python3 -c 'import socket, sys; all = [socket.create_server(("", 0)) for _ in range(int(sys.argv[1]))]; print(*(s.getsockname()[1] for s in all))' "$1"; }
node_state() { sinfo -h -N -p all -n "$1" -o %T 2>/dev/null; }

declare -A slurm_daemons
slurm_daemon() { # NAME COMMAND...: in the background
    local name=$1
    shift
    "$@" >"$work/slurm/$name.out" 2>&1 &
    slurm_daemons[$name]=$!
}
# slurm_up: starts munged, slurmctld and the slurmd of tw1 and tw2; fails, with the reason in $work/err, where they do not come up
# in half a minute. A node is taken for lost 5 s after it was heard of last. A job in the partition "all" preempts those in "low", which have no
# grace time and which Slurm does not put back into the queue by itself.
slurm_up() {
    local home=$work/slurm name node ports
    name=$(hostname -s)
    read -ra ports < <(free_ports 3)
    mkdir -p "$home/state" && mkdir "$home"/{spool,tmp}-tw{1,2} && chmod 700 "$home" || return 1
    (umask 077 && head -c 128 /dev/urandom >"$home/munge.key")
    slurm_daemon munged munged --foreground --force --key-file="$home/munge.key" --socket="$home/munge.socket" \
        --pid-file="$home/munged.pid" --log-file="$home/munged.log" --seed-file="$home/munge.seed"
    for _ in $(seq 100); do [ -e "$home/munge.socket" ] && break; sleep 0.1; done
    cat >"$home/slurm.conf" <<END
ClusterName=tuwen
SlurmctldHost=$name(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket,cred_expire=5
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool-%n
TmpFS=$home/tmp-%n
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd-%n.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
MpiDefault=pmix
ReturnToService=2
KillWait=30
SlurmdTimeout=5
SlurmdParameters=config_overrides
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
NodeName=DEFAULT CPUs=2 RealMemory=1000 Gres=gpu:2
NodeName=tw1 NodeHostname=$name NodeAddr=127.0.0.1 Port=${ports[1]}
NodeName=tw2 NodeHostname=$name NodeAddr=127.0.0.1 Port=${ports[2]}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1
END
    # What Slurm takes for two GPUs: the ranks of these tests compute on cores.
    printf 'Name=gpu File=%s\n' /dev/null /dev/zero >"$home/gres.conf"
    export SLURM_CONF=$home/slurm.conf
    slurm_daemon slurmctld slurmctld -D
    for node in tw1 tw2; do slurm_daemon $node slurmd -D -N $node; done
    for _ in $(seq 300); do
        [ "$(node_state tw1) $(node_state tw2)" = "idle idle" ] && return 0
        sleep 0.1
    done
    tail -n 9 "$home"/*.log "$home"/*.out >"$work/err"
    return 1
}
# What slurmd of a node keeps for each step, and the steps' tasks.
node_processes() {
    local p
    for p in $(pgrep "^slurm") $(pgrep -f "^$tuwen train .*--output $work"); do
        case $(readlink /proc/"$p"/fd/* 2>/dev/null) in *"$work/slurm/slurmd-$1.log"*) echo "$p" && continue ;; esac
        tr '\0' '\n' 2>/dev/null <"/proc/$p/environ" | grep -qx "SLURMD_NODENAME=$1" && echo "$p"
    done
}
# All at once, as when a host loses its power.
lose_node() {
    # shellcheck disable=SC2046 # numbers
    kill -9 $(node_processes "$1") 2>/dev/null
    wait "${slurm_daemons[$1]}" 2>/dev/null
    unset "slurm_daemons[$1]"
}
slurm_down() {
    local node
    [ -z "${SLURM_CONF:-}" ] || timeout 10 scancel -u root 2>/dev/null
    for node in tw1 tw2; do [ -z "${slurm_daemons[$node]:-}" ] || lose_node $node; done
    [ ${#slurm_daemons[@]} = 0 ] || { kill -9 "${slurm_daemons[@]}" && wait "${slurm_daemons[@]}"; } 2>/dev/null
    slurm_daemons=()
}
