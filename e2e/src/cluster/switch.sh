# The switch's namespace: a bridge that all nodes hang on, and the way to pods and Services.
# Arguments: pause's path, the gateway's address, then pairs of a range and where it is reached.
set -eu
pause=$1 gateway=$2
shift 2
ip link set lo up
ip link add switch type bridge
ip addr add "$gateway/24" dev switch
ip link set switch up
echo 1 >/proc/sys/net/ipv4/ip_forward
while [ $# -gt 0 ]; do
    ip route add "$1" via "$2"
    shift 2
done
echo ready
exec "$pause" >&2
