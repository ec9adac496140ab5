# Two hosts in this machine, for tests that cut the network between them; sourced after shell.sh. Each has a network (ip netns),
# a name, processes and mounts of its own, so that nothing reaches across but TCP over one wire, and the files. Open MPI
# starts on the first; what takes the place of ssh hands its command to the second one's first process.
space=tw$$
host_a=$space-a host_b=$space-b # as network, and as host

# hosts_up IDLE: connects them and sets on_a, what goes before a command for the first host. mpirun notices that the other is
# gone after IDLE to IDLE + 3 s, and gives the ranks 2 s to say which one it is. Fails where that is not allowed.
hosts_up() {
    ip netns add $host_a && ip netns add $host_b || return 1
    ip link add ${space}a type veth peer name ${space}b || return 1
    ip link set ${space}a netns $host_a && ip link set ${space}b netns $host_b || return 1
    ip -n $host_a addr add 10.213.7.1/24 dev ${space}a && ip -n $host_b addr add 10.213.7.2/24 dev ${space}b
    for side in a b; do ip -n $space-$side link set lo up; ip -n $space-$side link set $space$side up; done
    # When ranks notice first, mpirun has something to send to the lost host: it waits for that as long as the system tries,
    # by default a quarter of an hour, whatever keep-alive says. 4: for 6 s.
    ip netns exec $host_a sysctl -qw net.ipv4.tcp_retries2=4 || return 1
    printf '127.0.0.1 localhost\n10.213.7.1 %s\n10.213.7.2 %s\n' $host_a $host_b >"$work/hosts"
    # The first process of a host waits for the others, or takes in commands.
    cat >"$work/init" <<'END'
#!/bin/bash
hostname "$1" && mount --bind "$2/hosts" /etc/hosts || exit 1
work=$2
shift 2
if [ $# -gt 0 ]; then "$@"; exit; fi
exec 3<>"$work/wire"
while read -r -u 3 line; do bash -c "$line" 3>&- & done
END
    printf '#!/bin/bash\nshift\ntimeout 10 bash -c '\''echo "$*" >"$0"'\'' "%s/wire" "$@"\n' "$work" >"$work/agent"
    chmod +x "$work/init" "$work/agent"
    mkfifo "$work/wire"
    local settings=(plm_rsh_agent="$work/agent" btl=tcp,self btl_tcp_if_include=10.213.7.0/24 oob_tcp_if_include=10.213.7.0/24
        orte_tmpdir_base="$work" oob_tcp_keepalive_time="$1" oob_tcp_keepalive_intvl=1 oob_tcp_keepalive_probes=2
        odls_base_sigkill_timeout=2)
    local own=(unshare --uts --pid --fork --mount-proc --kill-child "$work/init")
    on_a=(env "${settings[@]/#/OMPI_MCA_}" ip netns exec $host_a "${own[@]}" $host_a "$work")
    "${on_a[@]}" true 2>"$work/err" || return 1
    ip netns exec $host_b "${own[@]}" $host_b "$work" >"$work/host_b" 2>&1 &
    daemon_b=$!
}
cut_network() { ip -n $host_b link set ${space}b down; }
mend_network() { ip -n $host_b link set ${space}b up; }
hosts_down() {
    [ -z "${daemon_b:-}" ] || { kill -9 $daemon_b && wait $daemon_b; } 2>/dev/null
    daemon_b=""
    ip netns del $host_a 2>/dev/null
    ip netns del $host_b 2>/dev/null
    rm -f "$work/wire"
}
