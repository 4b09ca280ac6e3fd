failed=0
fail() { printf '%s\n' "$1" >&2; failed=1; }

# norm PLACE VALUE: how a value is compared, for the kernel shows some in a form of its own: words, the one chosen of
# "a [b] c", masks with zeros in front.
norm() {
    words=$(printf '%s' "$2" | tr -s ' \t\n' '   ')
    case $words in *\[*\]*) words=${words#*\[}; words=${words%%\]*} ;; esac
    case $1 in *_cpus) words=$(printf '%s' "$words" | tr -d ', ' | sed 's/^0*//') ;; esac
    printf '%s' "${words% }"
}
same() { [ "$(norm "$1" "$2")" = "$(norm "$1" "$3")" ]; }

# What was changed stands in the record, as `sluice tune apply` writes it.
remember() {
    mkdir -p "$(dirname "$record")" && printf '%s\n' "$1" >> "$record" && return
    echo "$record cannot be written; nothing more is changed" >&2
    exit 74
}
is_remembered() { grep -qxF -e "$1" "$record" 2> /dev/null; }
forget() {
    grep -vxF -e "$1" "$record" > "$record.new"
    mv "$record.new" "$record"
    [ -s "$record" ] || rm -f "$record"
}

# write PLACE VALUE BEFORE: puts back what was there when the kernel takes something else.
write() {
    if printf '%s\n' "$2" 2> /dev/null > "$1" && same "$1" "$(cat "$1")" "$2"; then
        echo "changed  $1: $3 -> $2"
        return 0
    fi
    case $1 in
    /proc/irq/*) echo "left     $1: the kernel spreads this interrupt itself" ;;
    *) fail "$1 does not take $2" ;;
    esac
    same "$1" "$(cat "$1")" "$3" || printf '%s\n' "$3" 2> /dev/null > "$1"
    return 1
}

# put KNOB PLACE FOUND WANTED
put() {
    now=$(cat "$2" 2> /dev/null) || { fail "$2 is not there any more"; return; }
    if same "$2" "$now" "$4"; then
        echo "left     $2 is $4 already"
    elif same "$2" "$now" "$3"; then
        line=$(printf 'write\t%s\t%s\t%s\t%s' "$1" "$2" "$3" "$4")
        remember "$line"
        write "$2" "$4" "$3" || forget "$line"
    else
        fail "$2 is $now and not $3: the host has changed, make a new script"
    fi
}
put_back() {
    line=$(printf 'write\t%s\t%s\t%s\t%s' "$1" "$2" "$3" "$4")
    is_remembered "$line" || return
    now=$(cat "$2" 2> /dev/null)
    if ! same "$2" "$now" "$4"; then
        echo "left     $2 is $now and not $4: somebody else has changed it"
    else
        write "$2" "$3" "$4" || return
    fi
    forget "$line"
}

# holds MOUNT OPTION
holds() {
    options=$(findmnt -nro VFS-OPTIONS,FS-OPTIONS -M "$1" | tail -n 1 | tr ' ' ',')
    [ -n "$options" ] || return 1
    case $2 in
    strictatime) case ",$options," in *,noatime,* | *,relatime,*) return 1 ;; esac ;;
    nodiscard) case ",$options," in *,discard,*) return 1 ;; esac ;;
    *) case ",$options," in *",$2,"*) ;; *) return 1 ;; esac ;;
    esac
}
# mount_with MOUNT OPTION: everything else stays as it is mounted, whatever fstab says.
mount_with() {
    case $2 in
    noatime) how=remount,bind,noatime ;;
    relatime | strictatime) how=remount,bind,atime,$2 ;;
    *) how=remount,$2 ;;
    esac
    if mount --options-source mtab -o "$how" "$1" && holds "$1" "$2"; then
        echo "changed  $1: $2"
        return 0
    fi
    fail "$1 does not take $2"
    return 1
}
remount() {
    if holds "$2" "$4"; then
        echo "left     $2 has $4 already"
    elif holds "$2" "$3"; then
        line=$(printf 'remount\t%s\t%s\t%s\t%s' "$1" "$2" "$3" "$4")
        remember "$line"
        mount_with "$2" "$4" || forget "$line"
    else
        fail "$2 has not $3: the host has changed, make a new script"
    fi
}
remount_back() {
    line=$(printf 'remount\t%s\t%s\t%s\t%s' "$1" "$2" "$3" "$4")
    is_remembered "$line" || return
    if ! holds "$2" "$4"; then
        echo "left     $2 has not $4: somebody else has changed it"
    else
        mount_with "$2" "$3" || return
    fi
    forget "$line"
}

case "${1:-}" in apply | undo) ;; *) echo "usage: sh $0 apply|undo" >&2; exit 64 ;; esac
if [ "$(uname -n)" != "$host" ]; then
    echo "this script was made for $host, and this is $(uname -n): make one here" >&2
    exit 65
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "settings of the host are changed by root only" >&2
    exit 77
fi
