  // Paired differences with intervals: the same computation as tokbench.analysis.compare and tokbench.stats, with the
  // same resamples. `rules` holds the constants of the Python code.

  const NORMAL = 1.959963984540054; // half the width of a 95 % interval of the normal distribution
  const NONE = { low: NaN, high: NaN };

  // The PCG64 generator of NumPy. A 128-bit number is eight 16-bit parts, the lowest first.
  const parts = (hex) => Array.from({ length: 8 }, (_, i) => parseInt(hex.padStart(32, "0").slice(28 - 4 * i, 32 - 4 * i), 16));
  function pcg64() {
    const state = parts(rules.state), increment = parts(rules.increment), multiplier = parts("2360ed051fc65da44385df649fccf645");
    const next = new Array(8);
    let high = 0, waiting = false; // a 64-bit output gives two 32-bit numbers, the lower half first
    return () => {
      if (waiting) { waiting = false; return high; }
      let carry = 0;
      for (let k = 0; k < 8; k++) {
        let sum = carry + increment[k];
        for (let i = 0; i <= k; i++) sum += state[i] * multiplier[k - i];
        next[k] = sum % 65536;
        carry = (sum - next[k]) / 65536;
      }
      for (let k = 0; k < 8; k++) state[k] = next[k];
      const low = ((state[0] ^ state[4]) | ((state[1] ^ state[5]) << 16)) >>> 0;
      const top = ((state[2] ^ state[6]) | ((state[3] ^ state[7]) << 16)) >>> 0;
      const turn = state[7] >>> 10, [a, b] = turn & 32 ? [top, low] : [low, top], shift = turn & 31;
      const rotated = (lower, upper) => (shift ? ((lower >>> shift) | (upper << (32 - shift))) >>> 0 : lower);
      high = rotated(b, a);
      waiting = true;
      return rotated(a, b);
    };
  }

  // Calls `each` with the images of every resample: indices below `count`, drawn as NumPy's Generator.integers does.
  const KEPT_IMAGES = 4096, keptDraws = new Map();
  function eachResample(count, each) {
    const kept = keptDraws.get(count);
    if (kept) { for (let i = 0; i < rules.resamples; i++) each(kept.subarray(i * count, (i + 1) * count)); return; }
    const keep = count <= KEPT_IMAGES, all = new Uint32Array(keep ? rules.resamples * count : count), draw = pcg64();
    const threshold = (4294967296 - count) % count;
    for (let i = 0; i < rules.resamples; i++) {
      const chosen = keep ? all.subarray(i * count, (i + 1) * count) : all;
      for (let j = 0; j < count; j++) {
        let product = draw() * count, rest = product % 4294967296;
        while (rest < threshold) { product = draw() * count; rest = product % 4294967296; }
        chosen[j] = (product - rest) / 4294967296;
      }
      each(chosen);
    }
    if (keep) {
      if (keptDraws.size === 4) keptDraws.delete(keptDraws.keys().next().value);
      keptDraws.set(count, all);
    }
  }

  function sum(values) { // Neumaier's summation, whose error does not grow with the number of values
    let total = 0, lost = 0;
    for (const value of values) {
      const next = total + value;
      lost += Math.abs(total) >= Math.abs(value) ? total - next + value : value - next + total;
      total = next;
    }
    return total + lost;
  }
  const mean = (values) => sum(values) / values.length;
  const deviationOf = (values) => { // with the divisor n - 1
    const centre = mean(values);
    return Math.sqrt(sum(values.map((value) => (value - centre) ** 2)) / (values.length - 1));
  };
  const jackknifeDeviation = (values) => deviationOf(values) * (values.length - 1) / Math.sqrt(values.length);
  function quantile(ordered, share) { // linear between two values, as in NumPy
    const at = share * (ordered.length - 1), below = Math.floor(at), above = Math.min(below + 1, ordered.length - 1);
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below);
  }
  const tails = (values) => { const ordered = Float64Array.from(values).sort(); return [quantile(ordered, 0.025), quantile(ordered, 0.975)]; };

  // Half the width of a 95 % interval of Student's t, in standard deviations.
  const keptT = new Map();
  function studentsT(degrees) {
    if (keptT.has(degrees)) return keptT.get(degrees);
    let low = 1.9, high = 13; // t of one degree of freedom is 12.7
    if (degrees > 1000) { // the expansion of Fisher and Cornish (1960), whose error is below 1e-14
      const z = NORMAL, power = (n) => z ** n;
      const terms = [(power(3) + z) / 4, (5 * power(5) + 16 * power(3) + 3 * z) / 96, (3 * power(7) + 19 * power(5) + 17 * power(3) - 15 * z) / 384, (79 * power(9) + 776 * power(7) + 1482 * power(5) - 1920 * power(3) - 945 * z) / 92160];
      low = terms.reduce((total, term, i) => total + term / degrees ** (i + 1), z);
    } else {
      for (let i = 0; i < 60; i++) { // halvings, down to the precision of a number
        const middle = (low + high) / 2;
        if (upperTail(middle, degrees) > 0.025) low = middle; else high = middle;
      }
    }
    keptT.set(degrees, low);
    return low;
  }
  const upperTail = (t, degrees) => { // half the regularized incomplete beta function
    const x = degrees / (degrees + t * t), a = degrees / 2, b = 0.5;
    const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x));
    return 0.5 * (x < (a + 1) / (a + b + 2) ? front * betaFraction(x, a, b) / a : 1 - front * betaFraction(1 - x, b, a) / b);
  };
  function betaFraction(x, a, b) { // the continued fraction, by Lentz's algorithm
    const floor = (value) => (Math.abs(value) < 1e-300 ? 1e-300 : value);
    let c = 1, d = 1 / floor(1 - (a + b) * x / (a + 1)), result = d;
    for (let m = 1; m < 1000; m++) {
      for (const term of [m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))]) {
        d = 1 / floor(1 + term * d);
        c = floor(1 + term / c);
        result *= c * d;
      }
      if (Math.abs(c * d - 1) < 1e-15) break;
    }
    return result;
  }
  function logGamma(x) { // Lanczos' approximation with g = 7 and nine terms
    const terms = [676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7];
    if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
    const base = x + 6.5, series = terms.reduce((total, term, i) => total + term / (x + i), 0.99999999999980993);
    return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(base) - base + Math.log(series);
  }

  // How a number is computed from the mean of per-image values: tokbench.stats.bootstrap.DERIVED.
  const FUNCTIONS = {
    compression_ratio: { of: (bpp) => (bpp ? 24 / bpp : NaN), log: 0 },
    psnr: { of: (mse) => (mse ? 10 * Math.log10(255 ** 2 / mse) : NaN), log: -10 / Math.LN10 },
  };
  function meanStatistic(number, arrays) {
    if (number in arrays) return { values: number, of: (value) => value, log: 0 };
    const values = Object.hasOwn(rules.derived, number) ? rules.derived[number] : "";
    return values && values in arrays ? { values, ...FUNCTIONS[number] } : null;
  }

  function bootstrapPairs(first, second, how) {
    const count = first.length, gap = how.of(mean(second)) - how.of(mean(first));
    if (how.log) {
      const equal = count > 1 && first.every((value, i) => value === second[i]);
      const reach = equal ? [0, 0] : logMeanReach(first, second), [below, above] = how.log > 0 ? reach : [reach[1], reach[0]];
      return { low: gap - Math.abs(how.log) * below, high: gap + Math.abs(how.log) * above };
    }
    if (count < rules.min_bootstrap_images) {
      const left = leaveOneOut(first, second, how);
      if (count < 2 || Number.isNaN(gap) || left.some(Number.isNaN)) return NONE;
      const reach = studentsT(count - 1) * jackknifeDeviation(left);
      return { low: gap - reach, high: gap + reach };
    }
    const gaps = [];
    eachResample(count, (chosen) => {
      let ours = 0, theirs = 0;
      for (let i = 0; i < count; i++) { ours += first[chosen[i]]; theirs += second[chosen[i]]; }
      gaps.push(how.of(theirs / count) - how.of(ours / count));
    });
    const valid = gaps.filter((value) => !Number.isNaN(value));
    if (Number.isNaN(gap) || !valid.length) return NONE;
    const [low, high] = tails(valid);
    return { low: Math.min(low, gap), high: Math.max(high, gap) };
  }
  function leaveOneOut(first, second, how) {
    const [ours, theirs] = [sum(first), sum(second)], others = first.length - 1;
    return Array.from(first, (value, i) => how.of((theirs - second[i]) / others) - how.of((ours - value) / others));
  }
  const pairDeviation = (first, second, how) => (first.length < 2 ? NaN : jackknifeDeviation(leaveOneOut(first, second, how)));

  function logMeanReach(first, second) {
    const count = first.length, positive = (values) => values.reduce((total, value) => total + (value > 0), 0);
    if (count < 2 || Math.min(positive(first), positive(second)) < rules.min_positive_values) return [NaN, NaN];
    const influence = new Float64Array(count);
    const estimate = (chosen) => { // of the difference of two logarithms, and its deviation by the delta method
      let ours = 0, theirs = 0;
      for (let i = 0; i < count; i++) { ours += first[chosen[i]]; theirs += second[chosen[i]]; }
      ours /= count; theirs /= count;
      if (!ours || !theirs) return [NaN, NaN];
      for (let i = 0; i < count; i++) influence[i] = second[chosen[i]] / theirs - first[chosen[i]] / ours;
      return [Math.log(theirs) - Math.log(ours), deviationOf(influence) / Math.sqrt(count)];
    };
    const [value, deviation] = estimate(Uint32Array.from({ length: count }, (_, i) => i)), studentized = [];
    eachResample(count, (chosen) => {
      const [other, own] = estimate(chosen);
      if (own > 0) studentized.push((other - value) / own);
    });
    const [low, high] = studentized.length ? tails(studentized) : [0, 0], t = studentsT(count - 1);
    return [Math.max(high, t) * deviation, Math.max(-low, t) * deviation];
  }

  // The difference of two metrics from their replicates: tokbench.stats.split_half and tokbench.stats.spread.
  const KINDS = ["replicates", "jackknife", "splits", "distinct"];
  const columnOfArray = (array, place) => {
    const width = array.shape[1] || 1;
    return Float64Array.from({ length: array.shape[0] }, (_, i) => array.data[i * width + place]);
  };
  const minus = (a, b) => a.map((value, i) => value - b[i]);
  function replicatesOf(result, number) {
    const kind = KINDS.find((one) => `${one}.${number}` in result.arrays);
    // Usage that earlier versions stored has no valid replicates (tokbench.results.result).
    return kind && !`${kind}.${number}.`.startsWith("jackknife.codebook_usage.") ? { kind, array: result.arrays[`${kind}.${number}`] } : null;
  }
  function replicatesGap(number, first, second) {
    const base = nameOf(number).finite, [ours, theirs] = [first, second].map((one) => replicatesOf(one, base));
    if (!ours || !theirs || ours.kind !== theirs.kind || ours.array.shape[0] !== theirs.array.shape[0]) return null;
    const gap = second.metrics[base].value - first.metrics[base].value, wide = (one) => one.array.shape.length > 1 && one.array.shape[1] > 1;
    const values = minus(columnOfArray(theirs.array, 0), columnOfArray(ours.array, 0));
    if (ours.kind === "replicates") {
      if (base === number) return { gap, ...halves(values) };
      if (!wide(ours) || !wide(theirs)) return null;
      const quarters = minus(columnOfArray(theirs.array, 1), columnOfArray(ours.array, 1));
      return { gap: 2 * gap - mean(values), ...halves(values.map((value, i) => 2 * value - quarters[i])) };
    }
    if (base !== number) return null;
    const degrees = values.length - 1;
    if (ours.kind === "splits") return { gap, degrees, deviation: deviationOf(values) / Math.sqrt(values.length), scales: true, reach: (spread) => [spread, spread] };
    const deviation = jackknifeDeviation(values);
    if (ours.kind === "jackknife") return { gap, degrees, deviation, scales: true, reach: (spread) => [spread, spread] };
    const equal = ours.array.data.every((value, i) => value === theirs.array.data[i]);
    const total = (one, place) => sum(columnOfArray(one.array, place));
    const lost = equal ? 0 : Math.hypot(total(theirs, 1), total(ours, 2)), gained = equal ? 0 : Math.hypot(total(theirs, 2), total(ours, 1));
    return { gap, degrees, deviation, scales: false, reach: (spread) => [Math.hypot(spread, lost), Math.hypot(spread, gained)] };
  }
  function halves(values) { // complementary halves follow each other
    const squares = [];
    for (let i = 0; i < values.length; i += 2) squares.push(((values[i] - values[i + 1]) / 2) ** 2);
    return { degrees: squares.length, deviation: Math.sqrt(mean(squares)), scales: true, reach: (spread) => [spread, spread] };
  }

  function verdictOf(number, gap, { low, high }) {
    if (gap === 0 && low === 0 && high === 0) return "same";
    if (Number.isNaN(low) || Number.isNaN(high)) return "no error bar";
    if (low <= 0 && high >= 0) return "cannot tell";
    const { more } = columnFor(number);
    return more === null ? "no direction" : gap > 0 === more ? "better" : "worse";
  }

  // The smallest number of images whose 95 % interval of the gap excludes 0 with a probability of 80 %:
  // tokbench.stats.sample_size.
  function imagesNeeded({ gap, deviation, n }) {
    if (gap === 0 || Number.isNaN(gap) || Number.isNaN(deviation)) return null;
    const ratio = (rules.power_factor * deviation / gap) ** 2 * n;
    let needed = Math.max(2, Math.ceil(NORMAL ** 2 * ratio));
    while (studentsT(needed - 1) ** 2 * ratio >= needed) needed++;
    return needed;
  }

  // The per-image values of both results on their common images; null if the number is not made of them.
  function pairsOf(number, first, second) {
    const how = meanStatistic(number, first.arrays), other = meanStatistic(number, second.arrays);
    if (!how || !other || how.values !== other.values) return null;
    const places = new Map(Array.from(first.arrays.index.data, (index, place) => [index, place]));
    const names = [], ours = [], theirs = [];
    second.arrays.index.data.forEach((index, place) => {
      if (!places.has(index)) return;
      names.push(second.arrays.name[place]);
      ours.push(first.arrays[how.values].data[places.get(index)]);
      theirs.push(second.arrays[how.values].data[place]);
    });
    return { how, names, ours, theirs };
  }

  function differsClearly(number, first, second) { // without the bootstrap; false where that is not certain
    const pairs = pairsOf(number, first, second);
    if (!pairs || pairs.how.values !== number || pairs.names.length < rules.min_bootstrap_images) return false;
    const each = minus(pairs.theirs, pairs.ours);
    return Math.abs(mean(each)) > 15 * deviationOf(each) / Math.sqrt(each.length);
  }

  // Second minus first, over the images for which both have a value. moved: the images by decreasing difference.
  function difference(number, first, second) {
    const pairs = pairsOf(number, first, second), empty = { number, gap: NaN, ...NONE, deviation: NaN, alone: 0, moved: [], movedIn: number };
    if (!pairs) {
      const [ours, theirs] = [first, second].map((one) => one.metrics[number].value), n = second.metrics[number].n ?? second.num_images;
      const plain = { ...empty, first: ours, second: theirs, n };
      if (ours === null || theirs === null) return { ...plain, verdict: ours === theirs ? "same" : "cannot tell" };
      const found = replicatesGap(number, first, second);
      if (!found) return { ...plain, gap: theirs - ours, verdict: theirs === ours ? "same" : "no error bar" };
      const { gap, degrees, deviation, scales, reach } = found;
      const [below, above] = degrees < 1 ? [NaN, NaN] : reach(studentsT(degrees) * deviation), interval = { low: gap - below, high: gap + above };
      // As in Python, the table shows the difference of the two numbers, around which an extrapolation may lie.
      return { ...plain, gap: theirs - ours, ...interval, deviation: scales ? deviation : NaN, verdict: verdictOf(number, theirs - ours, interval) };
    }
    const { how } = pairs, names = [], ours = [], theirs = [];
    let firstOnly = 0, secondOnly = 0;
    pairs.names.forEach((name, i) => {
      const [a, b] = [pairs.ours[i], pairs.theirs[i]], [noFirst, noSecond] = [Number.isNaN(a), Number.isNaN(b)];
      if (noFirst || noSecond) { firstOnly += noSecond && !noFirst; secondOnly += noFirst && !noSecond; return; }
      names.push(name); ours.push(a); theirs.push(b);
    });
    const alone = firstOnly + secondOnly, value = (values) => { const of = values.length ? how.of(mean(values)) : NaN; return Number.isNaN(of) ? null : of; };
    const plain = { ...empty, first: value(ours), second: value(theirs), n: names.length, alone, movedIn: how.values };
    if (plain.first === null || plain.second === null) return { ...plain, verdict: plain.first === plain.second && !alone ? "same" : "cannot tell" };
    const gap = plain.second - plain.first, interval = bootstrapPairs(ours, theirs, how);
    const moved = names.map((name, i) => ({ name, first: ours[i], second: theirs[i], gap: theirs[i] - ours[i] })).filter((one) => one.gap);
    moved.sort((a, b) => Math.abs(b.gap) - Math.abs(a.gap));
    return { ...plain, gap, ...interval, moved, deviation: Number.isNaN(interval.low) ? NaN : pairDeviation(ours, theirs, how), verdict: alone ? "cannot tell" : verdictOf(number, gap, interval) };
  }

  // Whether two results computed a number with the same network, weights, device and settings.
  const settingsOf = (recorded) => JSON.stringify(Object.entries(recorded || {}).filter(([key]) => !rules.found.some((start) => key.startsWith(start))).sort());
  const sameSettings = (number, first, second) => settingsOf(first.provenance.metrics[number]) === settingsOf(second.provenance.metrics[number]);
  function differences(first, second) {
    const shared = Object.keys(first.metrics).filter((number) => Object.hasOwn(second.metrics, number) && !nameOf(number).cell);
    const ordered = shared.sort((a, b) => columnFor(a).rank - columnFor(b).rank || (a < b ? -1 : 1));
    const alike = ordered.filter((number) => sameSettings(number, first, second));
    return { found: alike, otherwise: ordered.filter((number) => !alike.includes(number)) };
  }
