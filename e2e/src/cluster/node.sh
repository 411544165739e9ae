# The first process of a node, in mount, pid and uts namespaces of its own: it makes the node's view of the file
# system, in which nothing of the machine can be written, and then waits.
# Arguments: the node's folder, its name, then the folders of the programs.
set -eu
folder=$1 name=$2
shift 2

# The kubelet and containerd need mounts to propagate to containers; after unshare they stay in this namespace.
mount --make-rshared /
hostname "$name"

mount -t tmpfs -o mode=755 tmpfs "$folder/run"
own=$folder/run/metricsstack-e2e
mkdir -p "$folder/run/netns" "$own/files" "$own/tools" "$own/sysctl"
mount --bind "$folder/files" "$own/files"
for tools; do
    mkdir "$own/tools/${tools##*/}"
    mount --bind "$tools" "$own/tools/${tools##*/}"
done
for top in etc usr; do
    mount -t overlay -o "lowerdir=/$top,upperdir=$folder/upper-$top,workdir=$folder/work-$top" overlay "/$top"
done
mount --rbind "$folder/var" /var
mount --rbind "$folder/run" /run

# The kubelet sets these for the whole machine: it gets copies.
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    if [ -e "/proc/sys/$setting" ]; then
        copy=/run/metricsstack-e2e/sysctl/${setting##*/}
        cat "/proc/sys/$setting" >"$copy"
        mount --bind "$copy" "/proc/sys/$setting"
    fi
done
echo 1 >/proc/sys/net/ipv4/ip_forward

mount -t tmpfs tmpfs /tmp
mount -o remount,bind,ro /
cd /
for pause in /run/metricsstack-e2e/tools/pause-*/pause; do
    echo ready
    exec "$pause" >&2
done
