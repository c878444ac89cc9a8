"""The words of pages of text, by script: common English and Japanese words."""

from __future__ import annotations

_LATIN = """
about account across after again against agree almost always amount animal another answer around autumn balance become
before begin behind believe better between bottle branch bridge bright bring broken brother budget build business
capital careful carry castle centre century certain chance change charge child choose circle citizen clear climate
coast colour common company complete consider contain control copper corner country course cover create crowd culture
current danger decide deep degree demand depend describe design detail different direct distance divide doctor double
early earth effect eight either energy engine enough equal evening every exact example expect experience explain
factor family farmer father field figure final finger flower follow force foreign forest forget former forward fourth
friend garden gather general glass gold government great green ground group growth guide happen harbour health heart
heavy history holiday house however hundred idea imagine important include increase industry inside instead island
journey judge jump just keep kind kitchen knowledge known language large later laugh learn leave length letter level
library light limit listen little local machine manage market matter meadow measure member memory method middle minute
model moment money month morning mother mountain museum music nature nearly network never night north nothing notice
number object observe office often operate orange order other outside paper parent people perhaps period person
picture piece place plant please point policy popular possible power practice present pressure problem produce project
promise protect public quality quarter question quick quiet railway rather reach reason record region remain report
result return river school science season second section service several shadow simple society south special spring
square station steady stone street strong student summer supply surface system table teacher theory thing though
thousand through together town travel under unit until value village visit voice volume water weather week weight
western winter wonder world write
"""

_JAPANESE = """
朝 雨 家 池 石 市場 糸 犬 色 岩 馬 海 絵 駅 円 王 音楽 温度 会社 海岸 会議 科学 学校 火山 風 家族 形 刀 学生 川 考え
関係 観察 漢字 木 機械 季節 北 気持ち 客 教育 教室 共同 距離 銀行 金属 空気 草 薬 国 雲 車 黒い 計画 経済 結果 研究
言葉 現在 建物 公園 工場 交通 声 氷 国際 心 答え 子供 米 魚 桜 作品 雑誌 里 産業 試験 時間 資源 自然 実験 質問 自動車
島 社会 写真 住所 自由 習慣 重要 主人 種類 情報 食事 植物 調査 新聞 水準 数学 少し 砂 図書館 生活 政府 世界 説明 選手
戦争 線路 全体 専門 増加 空 体験 太陽 台風 大学 時計 建築 旅 食べ物 試す 誰か 地図 地方 力 茶 注意 中心 朝食 直線 月
土 強い 手紙 天気 電車 電話 道路 動物 都市 図面 友達 鳥 内容 夏 波 名前 日本 庭 人間 熱 年齢 農業 乗り物 橋 場所 発見
花 話す 春 半分 光 飛行機 必要 表現 病院 広場 風景 深い 舟 冬 部分 文化 平和 変化 方法 星 本 毎日 町 窓 緑 南 港 村
目的 文字 物語 森 問題 約束 野菜 山 夕方 雪 輸送 夢 用意 曜日 予定 夜 理由 料理 旅行 歴史 列車 練習 論文 私たち 若い
割合 あさ いつも うみ おもう かぜ きれい こえ さかな しずか すぐに たのしい つくる とても ながい はやい ひかり ふるい
ほしい みんな むかし やさしい ゆっくり わかる アイデア エネルギー カメラ ガラス グラフ コンピュータ サービス システム
スポーツ センター データ テスト ドア ニュース ネットワーク ノート バス ピアノ プログラム ページ ホテル マイク モデル
ラジオ レポート
"""

WORDS: dict[str, tuple[str, ...]] = {"latin": tuple(_LATIN.split()), "japanese": tuple(_JAPANESE.split())}
"""At least 200 words of each script, in lower case."""
