#!/bin/sh
# First process of the test VM: busybox sh on an initramfs. Makes the machine that the tests expect (pure cgroup v2 with
# every controller, an ext4 disk, swap, a root that can be pivoted away from), runs /job/run, reports its status, powers off.
export PATH=/bin:/sbin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 dev /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control; done
# Built in or not depends on the kernel; what is missing shows in the tests.
for module in virtio_pci virtio_console virtio_blk virtio_rng ext4 overlay loop tun; do modprobe "$module" 2> /dev/null; done
ip link set lo up
hostname vm

# Each device in turn may take a moment to appear.
port() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        for entry in /sys/class/virtio-ports/*; do
            [ "$(cat "$entry/name" 2> /dev/null)" = "$1" ] && { echo "/dev/${entry##*/}"; return; }
        done
        sleep 0.05
    done
    echo /dev/console
}
output=$(port output)
result=$(port result)
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -b /dev/vda ] && [ -b /dev/vdb ] && break; sleep 0.05; done

# pivot_root refuses to leave an initramfs, and unshare(CLONE_NEWUSER) fails in a chroot: so a tmpfs becomes the root.
mkdir -p /newroot
mount -t tmpfs -o mode=755 root /newroot
cp -a /bin /sbin /etc /newroot/
for directory in proc sys dev; do mkdir -p "/newroot/$directory"; mount --rbind "/$directory" "/newroot/$directory"; done
mkdir -p /newroot/job /newroot/lib/modules /newroot/usr /newroot/root /newroot/run /newroot/var /newroot/tmp
mount --bind /job /newroot/job
mount --bind /lib/modules /newroot/lib/modules
mount -t tmpfs -o mode=755 run /newroot/run
mount -t ext4 -o noatime /dev/vda /newroot/tmp || echo "no disk" > /dev/console
chmod 1777 /newroot/tmp
mkswap /dev/vdb > /dev/null && swapon /dev/vdb || echo "no swap" > /dev/console
cd /newroot && mount --move . /
chroot . /bin/sh /job/run > "$output" 2>&1 < /dev/null
echo "status=$?" > "$result"
sync
echo o > /proc/sysrq-trigger
sleep 5
